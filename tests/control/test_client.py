"""A client's call ends within its deadline, and says what it found."""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from forkfirst.control.client import ask
from forkfirst.control.protocol import MAX_ANSWER, MAX_REQUEST
from forkfirst.errors import (
    ForkfirstError,
    NotRunningError,
    PermissionRefusedError,
    StuckError,
)
from support.control_service import PATIENCE, count_descriptors, make_path, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SHORT = 0.1
"""Seconds of a deadline that is to pass."""


@contextmanager
def listening(backlog: int = 8) -> Iterator[tuple[str, socket.socket]]:
    """Listen, and nothing else: what a service does whose threads are all stuck."""
    with make_path() as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(backlog)
        listener.settimeout(PATIENCE)
        yield path, listener


@contextmanager
def answering(behave: Callable[[socket.socket], object]) -> Iterator[str]:
    """Serve one connection as *behave* does, in a thread."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            with suppress(OSError):  # the client leaves, as it should
                behave(connection)

    with listening() as (path, listener):
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def _ask_in_vain(path: str, error: type[ForkfirstError], seconds: float = PATIENCE) -> str:
    with pytest.raises(ForkfirstError) as caught:
        ask(path, "status", seconds=seconds)
    assert type(caught.value) is error
    text = str(caught.value)
    assert text.startswith(f"cannot ask {path} for 'status': ")
    return text.removeprefix(f"cannot ask {path} for 'status': ")


def test_the_fields_of_an_answer_are_returned() -> None:
    """The caller asked for them, not for the envelope."""
    with serving({"status": lambda request: {"pid": 7, "given": request}}) as path:
        answer = ask(path, "status", verbose=True)
    assert answer == {"pid": 7, "given": {"ask": "status", "verbose": True}}


@pytest.mark.parametrize(
    "kind", ["nothing", "no directory", "a file in the way", "a file", "stale"]
)
def test_where_nobody_listens_it_does_not_run(kind: str, tmp_path: Path) -> None:
    """Each of these is how a service that has ended may look."""
    path = tmp_path / "web.sock"
    if kind == "no directory":
        path = tmp_path / "nowhere" / "web.sock"
    elif kind == "a file in the way":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "web.sock"
    elif kind == "a file":
        path.touch()
    elif kind == "stale":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    assert _ask_in_vain(str(path), NotRunningError) == "nobody listens there"


def test_a_long_path_where_nobody_listens_is_the_same(tmp_path: Path) -> None:
    """How deep a home directory is must not change the answer."""
    path = tmp_path / ("d" * 120) / "web.sock"
    assert _ask_in_vain(str(path), NotRunningError) == "nobody listens there"
    path.parent.mkdir()
    assert _ask_in_vain(str(path), NotRunningError) == "nobody listens there"


def test_a_service_that_accepts_and_never_answers_is_stuck() -> None:
    """N12: a client without a deadline hangs with the service it should report."""
    with listening() as (path, _):
        began = time.monotonic()
        assert _ask_in_vain(path, StuckError, _SHORT) == "no answer within 0.1 s"
        assert _SHORT <= time.monotonic() - began < PATIENCE


def test_a_full_backlog_is_stuck_too() -> None:
    """Connecting waits as well: the kernel queues only so many for who does not accept."""
    with listening(backlog=0) as (path, _), socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        began = time.monotonic()
        assert _ask_in_vain(path, StuckError, _SHORT) == "no answer within 0.1 s"
        assert _SHORT * 0.9 <= time.monotonic() - began < PATIENCE


def test_a_full_backlog_that_is_worked_off_in_time_is_no_error() -> None:
    """To wait for the kernel's queue is what the deadline is for; EAGAIN at once is not."""
    with listening(backlog=0) as (path, listener), socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(ask(path, "x", seconds=PATIENCE)))
        asking.start()
        accepted, _ = listener.accept()
        second, _ = listener.accept()
        second.sendall(b'{"ok":true,"late":1}\n')
        asking.join(PATIENCE)
        accepted.close()
        second.close()
    assert answers == [{"late": 1}]


def test_the_deadline_is_for_the_whole_call() -> None:
    """A byte now and then would otherwise keep a client for ever."""
    stop = threading.Event()

    def dribble(connection: socket.socket) -> None:
        while not stop.wait(_SHORT / 10):
            connection.sendall(b" ")

    with answering(dribble) as path:
        began = time.monotonic()
        assert _ask_in_vain(path, StuckError, _SHORT) == "no answer within 0.1 s"
        assert time.monotonic() - began < PATIENCE
        stop.set()


def test_a_request_that_is_not_read_is_bounded_too() -> None:
    """A service whose receive buffer is full is as stuck as one that does not answer."""
    with listening() as (path, _):
        # Smaller than a request, so that sending is what has to wait.
        with socket.socket(socket.AF_UNIX) as probe:
            room = probe.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        with pytest.raises(StuckError):
            ask(path, "status", seconds=_SHORT, text="x" * min(room, MAX_REQUEST - 100))


def test_no_time_is_no_time() -> None:
    """0 means "for ever" to some calls of the kernel, and must not here."""
    with listening() as (path, _):
        for seconds in (0, -1, 1e-9):
            with pytest.raises(StuckError):
                ask(path, "status", seconds=seconds)


def test_hanging_up_without_an_answer_is_said() -> None:
    """The service ended in between; whether it runs, the lock can tell."""
    with answering(lambda connection: connection.recv(1000)) as path:
        assert _ask_in_vain(path, ForkfirstError) == "it hung up without an answer"
    with answering(lambda connection: connection.sendall(b'{"ok":tr')) as path:
        assert _ask_in_vain(path, ForkfirstError) == "it hung up without an answer"
    with answering(lambda _: None) as path:  # what was sent is not read: a reset
        assert _ask_in_vain(path, ForkfirstError) == "it hung up without an answer"


def test_what_is_no_answer_is_said() -> None:
    """Something else may listen there: the text helps to find out what."""
    with answering(lambda connection: connection.sendall(b"220 mail ready\r\n")) as path:
        text = _ask_in_vain(path, ForkfirstError)
    assert text == "what it answered is not JSON at character 4: extra data"
    with answering(lambda connection: connection.sendall(b'{"pid":7}\n')) as path:
        assert _ask_in_vain(path, ForkfirstError) == "it failed and does not say why"


def test_an_endless_answer_is_not_read_for_ever() -> None:
    """A client has memory to lose as well."""

    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x" * 1_000_000)

    with answering(flood) as path:
        assert _ask_in_vain(path, ForkfirstError) == "it never ends"


def test_a_long_answer_arrives_whole() -> None:
    """The stacks of thousands of tasks are megabytes."""
    text = "x" * (MAX_ANSWER - 100)
    with serving({"stacks": lambda _: {"text": text}}) as path:
        assert ask(path, "stacks", seconds=PATIENCE)["text"] == text


def test_a_refusal_is_its_own_error() -> None:
    """Its exit status tells scripts that asking again will not help."""
    refusal = b'{"ok":false,"error":"not permitted for uid 7","refused":true}\n'
    with answering(lambda connection: connection.sendall(refusal)) as path:
        assert _ask_in_vain(path, PermissionRefusedError) == "not permitted for uid 7"


def test_a_request_that_is_too_long_is_not_even_sent() -> None:
    """The limit is known on this side, so the mistake can be named here."""
    with pytest.raises(ForkfirstError, match=r"a message of 7\d{4} bytes is longer than 65536"):
        ask("/nowhere", "status", text="x" * 70_000)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reaches a long path")
def test_a_name_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    """Not "does not run": nothing was found out."""
    path = str(tmp_path / ("n" * 120))
    assert _ask_in_vain(path, ForkfirstError) == "longer than a socket's address may be"


def test_a_call_leaves_no_descriptor(tmp_path: Path) -> None:
    """Who watches a service asks it ten thousand times a day."""
    nobody = tmp_path / ("d" * 120) / "web.sock"
    nobody.parent.mkdir()
    with listening() as (stuck, _):
        descriptors = count_descriptors()
        _ask_in_vain(stuck, StuckError, _SHORT)
        _ask_in_vain(str(nobody), NotRunningError)
        _ask_in_vain(str(tmp_path), NotRunningError)
        assert count_descriptors() == descriptors
