"""What a program is told, when it asks for what is not there, and what only counts once."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from threading import Barrier, Thread

import pytest

from forkfirst import errors
from forkfirst.runtime.context import Context


def test_a_context_of_a_programs_own_test_needs_only_a_name() -> None:
    """A program must be testable without forkfirst around it."""
    context = Context(name="web")
    context.ready()
    context.status("busy")
    context.begin_stopping()
    assert context.is_ready
    assert context.stopping
    assert dict(context.listeners) == {}


def test_ready_is_said_once_by_whichever_thread() -> None:
    """The launcher's pipe is closed after the first."""
    said: list[str] = []
    told: list[str] = []
    context = Context(name="web", on_ready=said.append, on_status=told.append)
    start = Barrier(8)

    def say() -> None:
        start.wait()
        context.ready("serving")

    threads = [Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["serving"]
    assert told == ["serving"] * 7


def test_a_stop_is_told_once() -> None:
    """STOPPING=1 is final for the manager."""
    told = []
    context = Context(name="web", on_stopping=lambda: told.append(1))
    context.begin_stopping()
    context.begin_stopping()
    assert told == [1]


def test_a_waiter_is_woken_even_if_telling_the_manager_fails() -> None:
    """A manager that is gone must not keep the program."""

    def fail() -> None:
        raise BrokenPipeError

    context = Context(name="web", on_stopping=fail)
    with pytest.raises(BrokenPipeError):
        context.begin_stopping()
    assert context.wait_stopping_blocking()


def test_the_only_listener_needs_no_name() -> None:
    """And is the same object each time: a second one would close it when collected."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        context = Context(name="web", listeners=[("http", os.dup(server.fileno()))])
        with context.listener() as found:
            assert found is context.listener("http")
            assert found.getsockname() == server.getsockname()


def test_a_listener_that_is_not_there_is_named_with_those_that_are() -> None:
    """The person reads it in the log of a service that does not start."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        context = Context(name="web", listeners=[("http", os.dup(server.fileno()))])
        with (
            context.listener(),
            pytest.raises(errors.UsageError, match=r"'https', which was not declared.*'http'"),
        ):
            context.listener("https")


def test_of_two_listeners_one_must_be_named() -> None:
    """To take the first would be to guess."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        given = [("a", os.dup(server.fileno())), ("b", os.dup(server.fileno()))]
        context = Context(name="web", listeners=given)
        with (
            context.listener("a"),
            context.listener("b"),
            pytest.raises(errors.UsageError, match="there are 2"),
        ):
            context.listener()


def test_without_listeners_the_hint_says_how_to_get_one() -> None:
    """The commonest first mistake."""
    with pytest.raises(errors.UsageError, match="declared: none") as caught:
        Context(name="web").listener("http")
    assert "--listen http=ADDRESS" in caught.value.hint
