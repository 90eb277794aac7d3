"""The launcher: take its steps, fork, wait for READY, and answer for the outcome.

The launcher exits last. It exits 0 only after the service said READY; otherwise it shows what the
program wrote, ends every process that it made, undoes every step, and says why.
"""

from __future__ import annotations

import os
import signal
import time

from forkfirst import errors
from forkfirst.plan import steps
from forkfirst.stages import apply
from forkfirst.stages.start import ENDING_SIGNALS
from forkfirst.unix import children, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

    from forkfirst.stages.apply import Table
    from forkfirst.stages.start import Start
    from forkfirst.unix.channel import Report

_SHOWN = 32 * 1024
"""Bytes of the program's output, the last ones, that a failed start copies to the terminal."""


class _Interrupted(BaseException):
    """A signal asked the launcher to give up."""

    def __init__(self, number: int) -> None:
        self.number = number


def launch(start: Start, table: Table = apply.TABLE) -> None:
    """Start the service in the background; return when it is ready.

    Returns only in the launcher: the session leader and the service never come back from here.

    Raises:
        ForkfirstError: The service does not run. Nothing is left of it.
    """
    plan = start.plan
    try:
        apply.apply_steps(plan.launcher, start, table)
        if start.child == 0:
            _be_leader(start, table)
        apply.apply_steps(plan.last, start, table)
    except errors.ForkfirstError:
        start.undo()
        raise


def run_here(start: Start, table: Table = apply.TABLE) -> NoReturn:
    """Run the service in this process, and exit with its status. Makes no process."""
    try:
        apply.apply_steps(start.plan.launcher, start, table)
        apply.apply_steps(start.plan.worker, start, table)
    except errors.ForkfirstError:
        start.undo()
        raise
    raise AssertionError  # the last step leaves


def _be_leader(start: Start, table: Table) -> NoReturn:
    from forkfirst.stages import leader  # noqa: PLC0415 - only the child needs it

    leader.lead(start, table)


# -- waiting for READY ------------------------------------------------------------------------------


def await_ready(step: steps.AwaitReady, start: Start) -> None:
    """Wait until the service is ready; on anything else take it down and say why.

    Raises:
        ForkfirstError: It will not be ready. Every process of it is gone.
    """
    os.close(start.report_to)  # the service's end: ours would hide its end of file
    restore = _listen_for_signals()
    try:
        failure = _wait(step, start)
    except _Interrupted as interruption:
        failure = _give_up(start, interruption.number)
    finally:
        restore()
    if failure is None:
        _dismiss_leader(start)
        return
    _end_everything(start)
    _show_output(start, failure)
    raise failure


def _wait(step: steps.AwaitReady, start: Start) -> errors.ForkfirstError | None:
    assert start.report is not None  # noqa: S101 - OpenReport comes before Fork
    deadline = time.monotonic() + step.seconds
    ended: Report | None = None
    while True:
        try:
            report = start.report.receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return _too_slow(start, step.seconds)
        if report is None:  # every writer is gone, and none of them said READY
            return _explain_end(ended, None)
        match report.kind:
            case "born":
                start.pid = int(report.fields["pid"])
                start.pidfd = children.open_pidfd(start.pid)
            case "ready":
                start.status = str(report.fields["status"])
                return None
            case "refused":
                return _refusal(report)
            case "ended":
                ended = report
            case _:
                return _explain_end(ended, int(report.fields["raw"]))


def _refusal(report: Report) -> errors.ForkfirstError:
    failure = errors.ForkfirstError(
        str(report.fields["message"]), hint=str(report.fields["hint"])
    )
    failure.exit_status = int(report.fields["exit_status"])
    return failure


def _explain_end(ended: Report | None, raw: int | None) -> errors.ForkfirstError:
    """Say how the program ended before it was ready."""
    if ended is not None and ended.fields["how"] == "raised":
        what, status = "failed", errors.ProgramFailedError.exit_status
    elif raw is None:
        what, status = "disappeared", errors.ProgramFailedError.exit_status
    elif os.WIFSIGNALED(raw):
        what, status = children.describe_status(raw), children.exit_status(raw)
    else:
        status = children.exit_status(raw)
        what = f"ended with status {status}"
        status = status or errors.ProgramFailedError.exit_status
    return errors.ProgramFailedError(
        f"the program {what} before it was ready", exit_status=status
    )


def _too_slow(start: Start, seconds: float) -> errors.ForkfirstError:
    _show_where_it_hangs(start)
    return errors.StuckError(
        f"not ready after {seconds:g} s",
        hint="give it more time with --ready-timeout, or see above where it waits",
    )


def _show_where_it_hangs(start: Start) -> None:
    """Put the stacks of the service into its log, from where they are shown with the rest."""
    from forkfirst.control import client  # noqa: PLC0415 - only a failed start needs it

    try:
        answer = client.ask(start.plan.places.control_socket, "stacks", seconds=2.0)
    except errors.ForkfirstError:
        # Nobody answers, so not even the control thread runs: the fault handler needs no
        # interpreter, writes every stack to the log, and ends the process.
        if _signal_service(start, signal.SIGABRT):
            _wait_for_leader(start, 2.0)
        return
    os.write(start.log, b"\n" + str(answer["stacks"]).encode(errors="backslashreplace"))


def _give_up(start: Start, number: int) -> errors.ForkfirstError:
    """Take the service down as it would be stopped: somebody pressed Ctrl-C while waiting."""
    if _signal_service(start, signal.SIGTERM):
        _wait_for_leader(start, start.plan.service.grace_seconds)
    return errors.ProgramFailedError(
        f"given up on {signal.Signals(number).name}, and the service was taken down",
        exit_status=128 + number,
    )


# -- processes --------------------------------------------------------------------------------------


def _dismiss_leader(start: Start) -> None:
    """End the session leader: from now on the service stands alone.

    Only now may the launcher's end of the report close: the leader takes that for our death.
    """
    os.kill(start.child, signal.SIGKILL)  # our own child, not yet waited for: the pid is its own
    children.waitpid(start.child)


def _end_everything(start: Start) -> None:
    children.end_session(start.child, signal.SIGKILL)
    os.kill(start.child, signal.SIGKILL)
    children.waitpid(start.child)


def _signal_service(start: Start, number: int) -> bool:
    if not start.pid:
        return False
    try:
        children.send_signal(start.pid, start.pidfd, number)
    except ProcessLookupError:
        return False
    return True


def _wait_for_leader(start: Start, seconds: float) -> None:
    """Wait until the leader has reported the service's death, at most *seconds*."""
    assert start.report is not None  # noqa: S101 - OpenReport comes before Fork
    deadline = time.monotonic() + seconds
    try:
        while (report := start.report.receive(max(0.0, deadline - time.monotonic()))) is not None:
            if report.kind == "exited":
                return
    except TimeoutError:
        return


def _listen_for_signals() -> Callable[[], None]:
    def interrupt(number: int, _: FrameType | None) -> None:
        raise _Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in ENDING_SIGNALS}
    signals.unblock_all()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


# -- what the person sees ---------------------------------------------------------------------------


def _show_output(start: Start, failure: errors.ForkfirstError) -> None:
    """Copy what the program wrote since the start to the terminal, and say how much it was."""
    size = os.fstat(start.log).st_size - start.log_offset
    if size <= 0:
        return
    begin = start.log_offset + max(0, size - _SHOWN)
    with open(start.plan.places.log, "rb") as log:  # noqa: PTH123 - no pathlib before the fork
        log.seek(begin)
        output = log.read(_SHOWN)
    os.write(2, output if output.endswith(b"\n") else output + b"\n")
    shown = f"{_describe_size(size)} of its output above"
    if size > _SHOWN:
        shown = f"the last {_describe_size(_SHOWN)} of {_describe_size(size)} of its output above"
    failure.args = (f"{failure.args[0]} ({shown})",)


def _describe_size(size: int) -> str:
    if size < 1024:  # noqa: PLR2004 - one KiB
        return f"{size} bytes"
    return f"{size / 1024:.1f} KiB"
