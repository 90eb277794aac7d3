"""The successor as its predecessor sees it: a process that is executed, heard, and perhaps ended.

Between the two stands the successor's own parent, which tells how it ends (`successor.lead`).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from forkfirst import errors
from forkfirst.plan import first
from forkfirst.stages.fork_first import Forked
from forkfirst.stages.fresh import interpreter
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import channel, children, passage
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.stages.start import Start
    from forkfirst.unix.channel import Report

_TAKING_SECONDS = 10.0
"""How long a successor that is ready may take to take over: it writes a pid and starts a thread."""
_SHOWING_SECONDS = 2.0
"""How long one that is not ready in time may take to say where it waits."""


def spawn(start: Start) -> Forked:
    """Execute a fresh interpreter that will be the successor, in the environment of our start."""
    forked = Forked()
    receive, forked.report_to = channel.open_channel()
    forked.report = channel.Reader(receive)
    forked.sender, forked.receiver = passage.open_passage()
    service = start.plan.service
    try:
        forked.child = interpreter.execute(
            "succeed",
            first.early_module(service.target, service.runtime),
            descriptors={
                interpreter.REPORT_TO: forked.report_to,
                interpreter.RECEIVER: forked.receiver,
            },
            own_session=False,
            own_group=True,  # so that all of it can be ended
            environment=start.environment,
            path=start.module_path,
        )
    except BaseException:
        os.close(forked.sender)
        os.close(receive)
        raise
    finally:
        os.close(forked.report_to)
        os.close(forked.receiver)
        forked.report_to = forked.receiver = NO_DESCRIPTOR
    return forked


def end(forked: Forked, ready: Ready | None = None) -> None:
    """End the successor, and whatever it has started; return when all are gone."""
    if is_ours(forked.child):
        forked.end()
    else:
        os.close(forked.sender)
    if ready is not None:
        with suppress(OSError):
            children.send_signal(ready.pid, ready.pidfd, signal.SIGKILL)
        children.wait_gone(ready.pid, ready.pidfd, _SHOWING_SECONDS)
        _let_go(ready.pidfd)
    if forked.report is not None:
        os.close(forked.report.fileno())
        forked.report = None


def is_ours(pid: int) -> bool:
    """Return whether *pid* is our child still: a program may wait for whatever ends."""
    if pid == NO_DESCRIPTOR:
        return False
    try:
        children.peek(pid)
    except ChildProcessError:
        return False
    return True


class Ready(Value):
    """A successor that is ready.

    Attributes:
        pid: The process.
        pidfd: A handle of it, where there are such.
        status: What it says of itself.
    """

    pid: int
    pidfd: int | None
    status: str


def wait_ready(forked: Forked, seconds: float) -> Ready:
    """Wait until the successor is ready.

    Raises:
        ForkfirstError: It will not be.
    """
    deadline = time.monotonic() + seconds
    pidfd = None
    try:
        pid = int(_await(forked, "born", seconds).fields["pid"])
        # Whatever it says later says also that this is it.
        pidfd = _hold(pid)
        status = str(_await(forked, "ready", deadline - time.monotonic()).fields["status"])
    except errors.ForkfirstError:
        _let_go(pidfd)
        raise
    except TimeoutError as error:
        _show_where_it_hangs(forked, pidfd)
        _let_go(pidfd)
        message = f"the program was not ready after {seconds:g} seconds"
        hint = "give it more time with --ready-timeout, or see above where it waits"
        raise errors.StuckError(message, hint=hint) from error
    return Ready(pid=pid, pidfd=pidfd, status=status)


def _hold(pid: int) -> int | None:
    try:
        return children.open_pidfd(pid)
    except ProcessLookupError:
        return None  # how it ended is on its way


def _let_go(pidfd: int | None) -> None:
    if pidfd is not None:
        os.close(pidfd)


def _show_where_it_hangs(forked: Forked, pidfd: int | None) -> None:
    """Have the successor write its stacks into the log.

    If not even its own thread runs, the fault handler does it, which needs no interpreter.
    """
    with suppress(OSError, errors.ForkfirstError):  # a TimeoutError is an OSError
        channel.send(forked.sender, "show")
        _await(forked, "shown", _SHOWING_SECONDS)
        return
    if pidfd is not None:
        with suppress(OSError, errors.ForkfirstError):
            signal.pidfd_send_signal(pidfd, signal.SIGABRT)
            _await(forked, "exited", _SHOWING_SECONDS)


def wait_taken(forked: Forked) -> Report:
    """Wait until the successor says that it has taken over, and is the service.

    Raises:
        ForkfirstError: It has not.
    """
    try:
        return _await(forked, "taken", _TAKING_SECONDS)
    except TimeoutError as error:
        message = f"the new process was ready, but did not take over in {_TAKING_SECONDS:g} s"
        raise errors.StuckError(message) from error


def _await(forked: Forked, kind: str, seconds: float) -> Report:
    """Wait until the successor says *kind*.

    Raises:
        ForkfirstError: It ends, or says that it cannot.
        TimeoutError: It says nothing.
    """
    assert forked.report is not None  # noqa: S101 - `spawn` has made it
    deadline = time.monotonic() + seconds
    how = ""
    while True:
        report = forked.report.receive(max(0.0, deadline - time.monotonic()))
        if report is None:
            raise _describe_failure("disappeared")  # noqa: EM101 - a word of the message
        if report.kind == kind:
            return report
        match report.kind:
            case "refused":
                fields = report.fields
                raise errors.ForkfirstError(str(fields["message"]), hint=str(fields["hint"]))
            case "ended":
                how = "failed"
            case "exited":
                raise _describe_failure(how or _describe_end(int(report.fields["raw"])))


def _describe_failure(what: str) -> errors.ForkfirstError:
    return errors.ProgramFailedError(f"the program {what} before it was ready")


def _describe_end(raw: int) -> str:
    if os.WIFSIGNALED(raw):
        return children.describe_status(raw)
    return f"ended with status {children.exit_status(raw)}"
