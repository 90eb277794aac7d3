"""The session leader: starts the session, forks the service, and watches it until READY.

It is the only parent that the service has, so only here can its true end be seen: an exit status,
or the signal that killed it. It also knows when the launcher dies, and then ends what was half
started. It has one thread and no runtime, and lives for as long as a start takes.
"""

from __future__ import annotations

import os
import select
import signal

from forkfirst import errors
from forkfirst.stages import apply
from forkfirst.unix import channel, children, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from forkfirst.stages.apply import Table
    from forkfirst.stages.start import Start

_WITHOUT_PIDFD = 50
"""Milliseconds between two looks at the service, where the kernel has no pidfd."""


def lead(start: Start, table: Table) -> NoReturn:
    """Take the leader's steps, then watch the service. Leaves by `_exit`, always."""
    assert start.report is not None  # noqa: S101 - OpenReport comes before Fork
    try:
        try:
            apply.apply_steps(start.plan.leader, start, table)
        except errors.ForkfirstError as error:
            report_refusal(start, error)
            session.leave(error.exit_status)
        if start.child == 0:
            from forkfirst.stages import child  # noqa: PLC0415 - the service's own code

            child.serve(start, table)
        _watch(start)
    finally:
        session.leave(errors.ForkfirstError.exit_status)


def report_refusal(start: Start, error: errors.ForkfirstError) -> None:
    """Tell the launcher that a step failed; if it is gone, there is nobody to tell."""
    try:
        channel.send(
            start.report_to,
            "refused",
            message=str(error).removeprefix(f'cannot start "{start.plan.service.name}": '),
            hint=error.hint,
            exit_status=error.exit_status,
        )
    except BrokenPipeError:
        return


def _watch(start: Start) -> None:
    """Report the service's end; end the service if the launcher dies first.

    The launcher alone holds the reading end of the report, so its death shows on our writing end
    as POLLERR. That is no race with READY: a launcher that has heard READY kills us before it leaves.
    """
    assert start.report is not None  # noqa: S101 - OpenReport comes before Fork
    os.close(start.report.fileno())
    try:
        channel.send(start.report_to, "born", pid=start.child)
    except BrokenPipeError:
        os.killpg(0, signal.SIGKILL)
    pidfd = children.open_pidfd(start.child)
    poller = select.poll()
    poller.register(start.report_to, 0)  # POLLERR is always reported
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    while True:
        events = dict(poller.poll(None if pidfd is not None else _WITHOUT_PIDFD))
        if start.report_to in events:
            os.killpg(0, signal.SIGKILL)  # the service, what it started, and ourselves
        raw = children.waitpid_nohang(start.child)
        if raw is not None:
            channel.send(start.report_to, "exited", raw=raw)
            session.leave(0)
