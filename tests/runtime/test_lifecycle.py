"""One program, written once, lives the same life on every runtime."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from support.runtime_child import FLAVOURS, Flavour, start_program

if TYPE_CHECKING:
    from support.runtime_child import Ended


@pytest.fixture(params=FLAVOURS, ids=str)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Every runtime, and both libraries that can be used on it."""
    found: Flavour = request.param
    return found


@pytest.fixture(params=FLAVOURS[:3], ids=str)
def runtime(request: pytest.FixtureRequest) -> Flavour:
    """Every runtime in its own library, where a library on top of it can change nothing."""
    found: Flavour = request.param
    return found


def run(flavour: Flavour, program: str) -> Ended:
    with start_program(flavour, program) as child:
        return child.finish()


# -- readiness -----------------------------------------------------------------------------------


def test_a_program_without_context_is_ready_after_its_first_step(flavour: Flavour) -> None:
    """Not before: a program that fails in its first step was never up."""
    with start_program(flavour, "ignorant") as child:
        child.wait_for("ready")
        assert [one["what"] for one in child.told] == ["first step", "ready"]


def test_a_program_with_context_is_ready_when_it_says_so(flavour: Flavour) -> None:
    """And only once; what it says later is its status."""
    with start_program(flavour, "says_ready") as child:
        child.wait_for("after")
        assert [one["what"] for one in child.told] == ["before", "ready", "status", "after"]
        assert child.wait_for("ready")["status"] == "serving"
        assert child.wait_for("status")["text"] == "again"


@pytest.mark.parametrize("program", ["returns_at_once", "returns_before_ready"])
def test_a_program_that_returned_first_was_never_ready(flavour: Flavour, program: str) -> None:
    """The launcher must not report as running what has ended."""
    ended = run(flavour, program)
    assert ended.status == 0
    assert "ready" not in ended.words
    assert not ended.fact("ended")["is_ready"]


# -- stop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_cancels_a_program_that_ignores_it(flavour: Flavour, number: int) -> None:
    """Its `finally` blocks run, and a stop is no failure."""
    with start_program(flavour, "ignorant") as child:
        child.wait_for("ready")
        child.signal(number)
        ended = child.finish()
    assert ended.words == ["first step", "ready", "stopping", "cleaned up", "ended"]
    assert (ended.status, ended.err) == (0, "")


def test_a_program_that_waits_for_the_stop_is_not_cancelled(flavour: Flavour) -> None:
    """It knows better than we do what is to be finished first."""
    with start_program(flavour, "cooperative") as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.words == ["ready", "stopping", "told", "drained", "ended"]
    assert (ended.status, ended.err) == (0, "")


def test_when_the_grace_period_has_passed_it_is_cancelled_after_all(flavour: Flavour) -> None:
    """With a line in the log, and time to clean up."""
    with start_program(flavour, "cooperative_without_end", grace=0.1) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.words == ["ready", "stopping", "told", "cleaned up", "ended"]
    assert ended.status == 0
    assert "tested: the grace period of 0.1 s ran out" in ended.err


@pytest.mark.uncovered
def test_a_clean_up_without_end_is_ended_and_its_tasks_are_shown(runtime: Flavour) -> None:
    """What hangs in an `await` is not on any thread's stack: only the await chain says where."""
    with start_program(runtime, "cleans_up_without_end", grace=0.1) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert "ended" not in ended.words
    assert ended.status == 1
    assert "the grace period of 0.1 s ran out" in ended.err
    assert "in cleans_up_without_end" in ended.err


@pytest.mark.parametrize("program", ["stuck_in_python", "stuck_in_python_when_told"])
def test_a_stuck_loop_cannot_outlast_the_grace_period(runtime: Flavour, program: str) -> None:
    """No callback of the loop would ever run; the signal's handler and the watch do."""
    with start_program(runtime, program, grace=0.1) as child:
        child.wait_for("ready" if program.endswith("told") else "stuck")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 1
    assert "stopping" in ended.words
    assert "the grace period of 0.1 s ran out" in ended.err
    assert f"in {program}" in ended.err.partition("it does not end")[2]


def test_c_code_that_holds_the_gil_cannot_outlast_the_grace_period(runtime: Flavour) -> None:
    """No thread of Python runs any more, so the log cannot say why; but it shows where."""
    with start_program(runtime, "stuck_in_c_when_told", grace=0.1) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 1
    assert "in stuck_in_c_when_told" in ended.err.partition("Timeout (")[2]


def test_a_second_signal_cancels_a_program_that_was_waiting(flavour: Flavour) -> None:
    """Whoever asks twice does not want to wait for the grace period."""
    with start_program(flavour, "cooperative_without_end", grace=3600) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        child.wait_for("told")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.words[-2:] == ["cleaned up", "ended"]
    assert ended.words.count("stopping") == 1
    assert ended.status == 0


def test_a_second_signal_leaves_a_clean_up_one_second(runtime: Flavour) -> None:
    """The clean-up goes on, it is not cancelled again; then the process ends."""
    with start_program(runtime, "cleans_up_without_end", grace=3600) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        child.wait_for("cleaning up")
        child.signal(signal.SIGINT)
        ended = child.finish()
    assert ended.status == 1
    assert "a second signal came, SIGINT" in ended.err
    assert "in cleans_up_without_end" in ended.err


def test_a_signal_after_the_end_does_not_kill(flavour: Flavour) -> None:
    """The pid file and the sockets are still to be removed then."""
    with start_program(flavour, "returns_at_once", SIGNAL_AFTER_THE_END="1") as child:
        ended = child.finish()
    assert (ended.status, ended.words[-1]) == (0, "alive")


# -- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "status"),
    [("exits", 3), ("exits_with_a_text", 1), ("exits_in_a_task", 5), ("returns_a_number", 7)],
)
def test_a_program_chooses_its_exit_status(flavour: Flavour, program: str, status: int) -> None:
    """In whichever task it does, and without a traceback: it meant to."""
    ended = run(flavour, program)
    assert ended.status == status
    assert "Traceback" not in ended.err
    assert ("no configuration" in ended.err) == (program == "exits_with_a_text")


def test_a_status_counts_during_a_stop_too(flavour: Flavour) -> None:
    """A stop is no failure, but the program may say that it was one."""
    with start_program(flavour, "exits_when_told") as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        assert child.finish().status == 4


@pytest.mark.parametrize(
    ("program", "status"), [("fails_before_ready", 70), ("fails_when_ready", 1)]
)
def test_an_exception_is_shown_as_the_program_raised_it(
    flavour: Flavour, program: str, status: int
) -> None:
    """From the program's first line on: our own frames would only be in the way."""
    ended = run(flavour, program)
    assert ended.status == status
    first_frame = ended.err.partition("Traceback (most recent call last):\n")[2].split("\n")[0]
    assert first_frame.endswith(f"in {program}")
    assert ended.err.rstrip().endswith("LookupError: no such luck")
    assert "/forkfirst/" not in ended.err


def test_an_exception_of_the_clean_up_is_a_failure(flavour: Flavour) -> None:
    """Something was not finished that should have been."""
    with start_program(flavour, "fails_in_clean_up") as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 1
    assert "RuntimeError: the clean-up went wrong" in ended.err


def test_a_group_of_one_is_shown_as_the_one(flavour: Flavour) -> None:
    """Every task group makes groups; one error in them is one error."""
    ended = run(flavour, "fails_in_one_task")
    assert ended.status == 1
    assert ended.err.rstrip().endswith("LookupError: no such luck")
    assert "ExceptionGroup" not in ended.err


def test_a_group_of_two_is_shown_whole(flavour: Flavour) -> None:
    """None of them is less true than the other."""
    ended = run(flavour, "fails_in_two_tasks")
    assert ended.status == 1
    assert "ExceptionGroup" in ended.err
    assert ended.err.count("LookupError: no such luck") == 2


# -- looking at it -------------------------------------------------------------------------------


def test_a_stuck_loop_is_seen_and_a_waiting_one_is_not(flavour: Flavour) -> None:
    """The control thread tells "stuck for 3 s" from "nothing to do for an hour"."""
    with start_program(flavour, "stuck_then_free") as child:
        child.wait_for("stuck")
        child.wait_for("turning")
        child.signal(signal.SIGTERM)
        assert child.finish().status == 0


def test_the_tasks_are_described_from_another_thread(flavour: Flavour) -> None:
    """A thread's stack shows the loop; the await chain shows the program."""
    with start_program(flavour, "outer") as child:
        text = child.wait_for("tasks")["text"]
    assert text.index("in outer") < text.index("in inner") < text.index("in rest")


def test_a_thread_waits_for_the_stop_too(flavour: Flavour) -> None:
    """A consumer that polls a library without async support must hear of the stop."""
    with start_program(flavour, "waits_in_a_thread") as child:
        child.wait_for("waiting")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.fact("woken")["answer"] is True
    assert ended.status == 0


def test_an_end_wakes_what_waits_for_the_stop(flavour: Flavour) -> None:
    """Or the program's own helpers would keep it."""
    ended = run(flavour, "leaves_while_a_task_waits")
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("program", ["returns_at_once", "fails_when_ready", "cooperative"])
def test_nothing_is_left_after_the_end(flavour: Flavour, program: str) -> None:
    """No descriptor, no thread, no child: the next loop in this process starts clean."""
    with start_program(flavour, program) as child:
        if program == "cooperative":
            child.wait_for("ready")
            child.signal(signal.SIGTERM)
        ended = child.finish()
    told = ended.fact("ended")
    assert told["after"] == told["before"]
