"""A plain function is stopped by an exception, unless it waits, and may have its own loop."""

from __future__ import annotations

import signal

import pytest

from support.runtime_child import PROGRAMS, Flavour, start_program

PLAIN = Flavour("plain", "asyncio")


def place(program: str) -> str:
    return f"{PROGRAMS / 'plain_programs.py'}:{program}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_a_blocking_function(number: int) -> None:
    """By an exception that `except Exception` does not catch; `finally` blocks run."""
    with start_program(PLAIN, place("sleeps")) as child:
        child.wait_for("asleep")
        child.signal(number)
        ended = child.finish()
    assert ended.words == ["ready", "asleep", "stopping", "cleaned up", "ended"]
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("program", "first"), [("computes", "computing"), ("joins_a_thread", "ready")]
)
def test_a_stop_ends_a_computation_and_a_lock(program: str, first: str) -> None:
    """Wherever the main thread is in Python, or waits in a way that a signal interrupts."""
    with start_program(PLAIN, place(program)) as child:
        child.wait_for(first)
        child.signal(signal.SIGTERM)
        assert child.finish().status == 0


def test_a_function_that_waits_is_woken_instead() -> None:
    """It ends by itself, at its own pace."""
    with start_program(PLAIN, place("waits")) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.fact("woken")["answer"] is True
    assert (ended.status, ended.err) == (0, "")


def test_a_wait_may_end_without_a_stop() -> None:
    """For a loop that does something every minute."""
    with start_program(PLAIN, place("waits_a_moment")) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.fact("woken")["answer"] is False
    assert ended.fact("woken again")["answer"] is True


def test_after_the_grace_period_it_is_ended_after_all() -> None:
    """The thread that keeps the time cannot raise in the main thread; it sends a signal."""
    with start_program(PLAIN, place("waits_and_does_not_end"), grace=0.1) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.words == ["ready", "stopping", "told", "cleaned up", "ended"]
    assert ended.status == 0
    assert "the grace period of 0.1 s ran out" in ended.err


def test_a_clean_up_without_end_is_ended() -> None:
    """With the stack of where it hangs."""
    with start_program(PLAIN, place("holds_on"), grace=0.1) as child:
        child.wait_for("asleep")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 1
    assert "in holds_on" in ended.err.partition("it does not end")[2]


def test_a_second_signal_shortens_it() -> None:
    """As on every runtime."""
    with start_program(PLAIN, place("holds_on"), grace=3600) as child:
        child.wait_for("asleep")
        child.signal(signal.SIGTERM)
        child.wait_for("cleaning up")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 1
    assert "a second signal came, SIGTERM" in ended.err


@pytest.mark.parametrize("program", ["has_asyncio", "has_uvloop", "has_trio"])
def test_a_stop_ends_a_loop_of_its_own_cleanly(program: str) -> None:
    """`def main(): asyncio.run(...)` is what most programs are; their `finally` may await."""
    with start_program(PLAIN, place(program)) as child:
        child.wait_for("resting")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.words[-2:] == ["cleaned up", "ended"]
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize(
    "program",
    ["waits_in_asyncio", "waits_in_trio", "waits_in_anyio", "waits_in_another_threads_loop"],
)
def test_the_context_works_in_a_loop_of_its_own(program: str) -> None:
    """It asks which library is running where it is called, and not what the service declared."""
    with start_program(PLAIN, place(program)) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert "woken" in ended.words
    assert (ended.status, ended.err) == (0, "")


def test_a_coroutine_without_a_runtime_is_refused() -> None:
    """It would never run, and Python would only warn."""
    with start_program(PLAIN, place("returns_a_coroutine")) as child:
        ended = child.finish()
    assert "TargetError: the program returned a coroutine" in ended.err
    assert "never awaited" not in ended.err


@pytest.mark.parametrize(("program", "status"), [("fails_before_ready", 70), ("fails", 1)])
def test_an_exception_is_shown(program: str, status: int) -> None:
    """Without our frames, and with the status that says whether it was ready."""
    with start_program(PLAIN, place(program)) as child:
        ended = child.finish()
    assert ended.status == status
    assert ended.err.rstrip().endswith("LookupError: no such luck")
    assert "/forkfirst/" not in ended.err


def test_a_number_is_the_status() -> None:
    """As for a console script."""
    with start_program(PLAIN, place("returns_a_number")) as child:
        ended = child.finish()
    assert ended.status == 7
    assert ended.fact("ended")["after"] == ended.fact("ended")["before"]
