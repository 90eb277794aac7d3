"""A start that a running program orders: it is carried out by a launcher in a fresh interpreter.

The program may have any runtime, any threads, gigabytes. All that happens in its process is: one
posix_spawn(3), one message with the order, waiting for one report, one waitpid(2). Lock, log and
listeners are opened by the launcher, so that no other thread of the program can fork a copy of
them; signals, umask and directory of the program are never touched. What the launcher does is a
start like any other (`stages.launch`), with the same readiness, the same failures, the same end.

A program that dies meanwhile does not stop the start: others may be waiting for that service.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from forkfirst import errors
from forkfirst.plan import order
from forkfirst.stages import packing
from forkfirst.stages.fresh import interpreter
from forkfirst.unix import channel, descriptors, passage, session
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from forkfirst.plan.plan import Plan
    from forkfirst.plan.service import Declaration
    from forkfirst.unix.channel import Field, Report

_SHOWN = 64 * 1024
"""Bytes of a failed start's output, the last ones, that are reported."""
_PATIENCE_SECONDS = 2.0
"""What is added to a service's own grace period before it is killed."""


class Order(Value):
    """What shall be started, and how.

    Attributes:
        service: The declaration, whose program is named by text.
        command: The command line that would start it again.
        directory: Where that would have to be given.
        replaces: Whether a running one that calls itself another version is stopped before.
    """

    service: Declaration
    command: tuple[str, ...]
    directory: str
    replaces: bool = False


class Commission:
    """An order that is being carried out, as the program sees it.

    Attributes:
        report_from: The descriptor that is readable when there is news.
    """

    def __init__(self, name: str, launcher: int, report_from: int) -> None:
        self.report_from = report_from
        self._name = name
        self._launcher = launcher
        self._outcome: Report | None = None
        self._reader = channel.Reader(report_from)

    def has_ended(self) -> bool:
        """Return whether the outcome is there; never waits."""
        try:
            self._outcome = self._reader.receive(0.0)
        except TimeoutError:
            return False
        return True

    def read_outcome(self) -> Mapping[str, Field]:
        """Return what is known of the service that was started: pid, status, seconds, log.

        Raises:
            ForkfirstError: It does not run; the program's own output is a note of the error.
        """
        if self._outcome is None:
            message = f'cannot start "{self._name}": the launcher disappeared'
            raise errors.ForkfirstError(message)
        if self._outcome.kind == "failed":
            raise _make_failure(self._outcome.fields)
        return self._outcome.fields

    def give_up(self) -> None:
        """Ask the launcher to take down what it has started; the outcome still comes."""
        self._signal(signal.SIGTERM)

    def close(self) -> None:
        """Let go of it. A launcher that is still at work is killed, and its service with it."""
        os.close(self.report_from)
        self._signal(signal.SIGKILL)  # in most cases it is ended already, but not waited for
        try:
            os.waitpid(self._launcher, 0)
        except ChildProcessError:
            return  # the program ignores SIGCHLD, or waits for whatever ends

    def _signal(self, number: int) -> None:
        try:
            # Still ours unless the program waits for children that are not its own.
            if os.waitid(os.P_PID, self._launcher, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(self._launcher, number)
        except (ChildProcessError, ProcessLookupError):
            return


def begin(ordered: Order) -> Commission:
    """Have *ordered* carried out by a launcher of its own; return without waiting for it.

    Does not fork, and changes nothing in this process.

    Raises:
        ForkfirstError: No process or no descriptor can be had.

    Source: posix_spawn(3).
    """
    ends: list[int] = []
    try:
        report_from, report_to = _keep(ends, channel.open_channel())
        sender, receiver = _keep(ends, passage.open_passage())
        given = {interpreter.REPORT_TO: report_to, interpreter.RECEIVER: receiver}
        launcher = interpreter.execute("start", ordered.service.name, descriptors=given)
        ends.remove(report_from)
        passage.send(sender, packing.pack(ordered), ())
    except (BrokenPipeError, ConnectionResetError):
        return Commission(
            ordered.service.name, launcher, report_from
        )  # it is gone: no outcome will come
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f'cannot start "{ordered.service.name}": {reason}'
        raise errors.SystemRefusedError(message) from error
    finally:
        for end in ends:
            os.close(end)
    return Commission(ordered.service.name, launcher, report_from)


def _make_failure(fields: Mapping[str, Field]) -> errors.ForkfirstError:
    """Return the launcher's error as it was there."""
    kind = getattr(errors, str(fields["error"]), errors.ForkfirstError)
    failure: errors.ForkfirstError = kind.__new__(kind)
    errors.ForkfirstError.__init__(failure, str(fields["message"]), hint=str(fields["hint"]))
    failure.exit_status = int(fields["exit_status"])
    if isinstance(failure, errors.AlreadyRunningError):
        failure.pid = int(fields["pid"])
    if fields["output"]:
        failure.add_note(str(fields["output"]))
    return failure


def _keep(ends: list[int], pair: tuple[int, int]) -> tuple[int, int]:
    ends.extend(pair)
    return pair


# -- in the launcher -------------------------------------------------------------------------------


def carry_out(report_to: int, receiver: int) -> NoReturn:
    """Take the order from *receiver*, start the service, and report to *report_to*."""
    received = passage.receive(receiver)
    os.close(receiver)
    if received is None:
        session.leave(0)
    ordered: Order = packing.unpack(received[0])  # the other end was never anybody else's
    output = _collect_output()
    try:
        outcome = _start(ordered)
    except Exception as error:  # noqa: BLE001 - of whatever kind: nobody else would hear of it
        failure = _describe(ordered.service.name, error)
        _report(
            report_to,
            "failed",
            error=type(failure).__name__,
            message=str(failure).replace("of its output above", "of its output below"),
            hint=failure.hint,
            exit_status=failure.exit_status,
            pid=getattr(failure, "pid", 0),
            output=_read_end(output),
        )
        session.leave(failure.exit_status)
    _report(report_to, "started", **outcome)
    session.leave(0)


def _start(ordered: Order) -> dict[str, str | int | float]:
    from forkfirst.stages import launch, probe  # noqa: PLC0415 - the program needs neither
    from forkfirst.stages.start import Start  # noqa: PLC0415 - as above

    host = probe.read_host(detaching=True, service=ordered.service)
    plan = order.make_plan(ordered.service, host)
    if ordered.replaces:
        _end_another_version(plan)
    under_way = Start(plan, command=ordered.command, directory=ordered.directory)
    launch.launch(under_way)
    return {
        "pid": under_way.pid,
        "status": under_way.status,
        "seconds": time.monotonic() - under_way.began,
        "log": plan.places.log,
    }


def _describe(name: str, error: Exception) -> errors.ForkfirstError:
    if isinstance(error, errors.ForkfirstError):
        return error
    import traceback  # noqa: PLC0415 - only for a bug of ours

    traceback.print_exception(error)
    return errors.ForkfirstError(f'cannot start "{name}": {type(error).__name__}: {error}')


def _end_another_version(plan: Plan) -> None:
    """End the service that runs, if it is of another version than the one that is ordered."""
    from forkfirst.control import client  # noqa: PLC0415 - only to replace one
    from forkfirst.stages import record, running  # noqa: PLC0415 - as above

    places = plan.places
    found = running.take(places.pid_file, plan.identity.uid if plan.identity else None)
    if found is None:
        return
    try:
        facts = client.ask(places.control_socket, "status")
    except errors.ForkfirstError:
        return  # it is being started, or ends: the lock will tell
    if facts["pid"] != found.pid or facts.get("version", "") == plan.service.version:
        return  # somebody else has replaced it since
    kept = record.read(places.record)
    found.end(
        plan.service.name,
        seconds=float(facts["grace_seconds"]) + _PATIENCE_SECONDS,
        session=kept.session if kept is not None else 0,
    )


def _collect_output() -> int:
    """Have what would be written to the terminal kept in a file without a name; return it."""
    file = descriptors.open_memory_file("output")
    os.dup2(file, 2)
    return file


def _read_end(file: int) -> str:
    sys.stderr.flush()
    size = os.fstat(file).st_size
    return os.pread(file, _SHOWN, max(0, size - _SHOWN)).decode(errors="replace")


def _report(report_to: int, kind: str, **fields: str | float) -> None:
    try:
        channel.send(report_to, kind, **fields)
    except BrokenPipeError:
        return  # whoever ordered it is gone
