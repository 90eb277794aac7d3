"""The launcher: take its steps, fork, wait for READY, and answer for the outcome.

The launcher exits last. It exits 0 only after the service said READY; otherwise it shows what the
program wrote, ends every process that it made, undoes every step, and says why.
"""

from __future__ import annotations

import os
import signal
import time

from forkfirst import errors
from forkfirst.plan import first, preparation
from forkfirst.stages import apply, fork_first, taking
from forkfirst.stages.fork_first import ENDING_SIGNALS
from forkfirst.unix import children, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table
    from forkfirst.unix.channel import Reader, Report

_LINE = 512
"""Bytes of a line of a usual length, at the most."""
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
    service = start.plan.service
    try:
        if start.forked is None:
            start.forked = _make_process(start, table)
        try:
            taking.apply_steps(start.plan.launcher, start, table)
            taking.apply_steps(start.plan.last, start, table)
        except BaseException:  # whatever it was, nothing may be left
            start.forked.end()
            raise
    except errors.ForkfirstError as error:
        start.undo()
        error.args = (_explain(service.name, error),)
        raise
    except BaseException:
        start.undo()
        raise


def start_by_command(command: tuple[str, ...]) -> int:
    """Have another launcher start a service by its command line; return its exit status.

    Source: posix_spawn(3).
    """
    pid = os.posix_spawn(command[0], command, os.environ)
    return children.exit_status(os.waitpid(pid, 0)[1])


def _make_process(start: Start, table: Table) -> fork_first.Forked:
    """Make the process that will be the service, by a fork or as a fresh interpreter."""
    service = start.plan.service
    if start.plan.spawns:
        from forkfirst.stages.fresh import interpreter  # noqa: PLC0415 - only for such a start

        return interpreter.spawn_service(start.plan.first, table)
    module = "" if service.workers else first.early_module(service.target, service.runtime)
    return fork_first.fork_service(table, module=module, program=start.program)


def _explain(name: str, error: errors.ForkfirstError) -> str:
    if isinstance(error, errors.UnsafeFork):
        from forkfirst.guard.hazard import describe_hazards  # noqa: PLC0415 - it has made the error

        return describe_hazards(error.hazards, service=name)  # type: ignore[arg-type] # errors knows no guard
    return f'cannot start "{name}": {error}'


# -- waiting for READY -----------------------------------------------------------------------------


def await_ready(step: preparation.AwaitReady, start: Start) -> None:
    """Wait until the service is ready; on anything else take it down and say why.

    Raises:
        ForkfirstError: It will not be ready. Every process of it is gone.
    """
    # One that is ignored stays so: nohup(1) means it, and a shell that runs us in the background.
    before = {
        number: signal.signal(number, _interrupt)
        for number in ENDING_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        failure = _wait_or_give_up(step, start)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert start.forked is not None  # noqa: S101 - it is what we waited for
    if failure is None:
        # From now on the service stands alone. Only after this may our end of the report close: the
        # leader takes that for our death.
        start.forked.dismiss()
        return
    start.forked.end()
    try:
        _show_output(start, failure)
    except OSError:
        raise failure from None  # nobody reads the terminal any more: the status must do
    raise failure


def _wait_or_give_up(step: preparation.AwaitReady, start: Start) -> errors.ForkfirstError | None:
    """Wait, with the signals heard that were blocked since the fork; they are blocked again after.

    So the outcome stands when this returns, and what is said about it is the truth.
    """
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        failure = _wait(step, start)
        signals.block(ENDING_SIGNALS)
    except _Interrupted as interruption:
        return _give_up(start, interruption.number)
    return failure


def _wait(step: preparation.AwaitReady, start: Start) -> errors.ForkfirstError | None:
    deadline = time.monotonic() + step.seconds
    ended: Report | None = None
    while True:
        try:
            report = _report(start).receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return _too_slow(start, step.seconds)
        if report is None:  # every writer is gone, and none of them said READY
            return _explain_end(ended, None)
        match report.kind:
            case "born":
                _take_hold(start, int(report.fields["pid"]))
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
    failure = errors.ForkfirstError(str(report.fields["message"]), hint=str(report.fields["hint"]))
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
    return errors.ProgramFailedError(f"the program {what} before it was ready", exit_status=status)


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
    """Take the service down as it would be stopped: somebody pressed Ctrl-C while waiting.

    A second Ctrl-C does not wait for it.
    """
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        _hear_of_service(start)
        if _signal_service(start, signal.SIGTERM):
            _wait_for_leader(start, start.plan.service.grace_seconds)
        signals.block(ENDING_SIGNALS)
    except _Interrupted as interruption:
        number = interruption.number
    return errors.ProgramFailedError(
        f"given up on {signal.Signals(number).name}, and the service was taken down",
        exit_status=128 + number,
    )


# -- processes -------------------------------------------------------------------------------------


def _hear_of_service(start: Start) -> None:
    """Hear which process the service is, if that has been said, and was not heard yet."""
    try:
        while not start.pid and (report := _report(start).receive(0.0)) is not None:
            if report.kind == "born":
                _take_hold(start, int(report.fields["pid"]))
    except TimeoutError:
        return


def _take_hold(start: Start, pid: int) -> None:
    """Note that *pid* is the service, with a handle of it if it has not ended already.

    The leader may have reaped it by now, and somebody else may have its pid: only a process of the
    leader's session is it.
    """
    assert start.forked is not None  # noqa: S101 - a launcher without a fork does not wait
    start.pid = pid
    try:
        start.pidfd = children.open_pidfd(pid)
        start.is_held = os.getsid(pid) == start.forked.child
    except ProcessLookupError:
        return  # how it ended is on its way


def _signal_service(start: Start, number: int) -> bool:
    if not start.is_held:
        return False
    try:
        children.send_signal(start.pid, start.pidfd, number)
    except ProcessLookupError:
        return False
    return True


def _wait_for_leader(start: Start, seconds: float) -> None:
    """Wait until the leader has reported the service's death, at most *seconds*."""
    deadline = time.monotonic() + seconds
    report_from = _report(start)
    try:
        while (report := report_from.receive(max(0.0, deadline - time.monotonic()))) is not None:
            if report.kind == "exited":
                return
    except TimeoutError:
        return


def _report(start: Start) -> Reader:
    assert start.forked is not None  # noqa: S101 - a launcher without a fork does not wait
    assert start.forked.report is not None  # noqa: S101 - OpenReport comes before Fork
    return start.forked.report


def _interrupt(number: int, _: FrameType | None) -> None:
    signals.block(ENDING_SIGNALS)  # the next one is heard where it is expected
    raise _Interrupted(number)


# -- what the person sees --------------------------------------------------------------------------


def _show_output(start: Start, failure: errors.ForkfirstError) -> None:
    """Copy what the program wrote since the start to the terminal, and say how much it was."""
    size = os.fstat(start.log).st_size - start.log_offset
    if size <= 0:
        return
    begin = start.log_offset + max(0, size - _SHOWN)
    with open(start.plan.places.log, "rb") as log:
        log.seek(begin)
        output = log.read(_SHOWN)
    if size > _SHOWN:
        output = output[output.find(b"\n", 0, _LINE) + 1 :]  # it begins within a line
    os.write(2, output if output.endswith(b"\n") else output + b"\n")
    shown = f"{_describe_size(size)} of its output above"
    if size > _SHOWN:
        shown = f"the last {_describe_size(_SHOWN)} of {_describe_size(size)} of its output above"
    failure.args = (f"{failure.args[0]} ({shown})",)


def _describe_size(size: int) -> str:
    if size < 1024:  # noqa: PLR2004 - one KiB
        return f"{size} bytes"
    return f"{size / 1024:.1f} KiB"


TABLE: Table = {preparation.AwaitReady: await_ready}
