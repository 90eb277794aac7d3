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
from forkfirst.plan import first, steps
from forkfirst.stages import fork_first
from forkfirst.unix import channel, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from forkfirst.stages.fork_first import Forked, Table

_WITHOUT_PIDFD = 50
"""Milliseconds between two looks at the service, where the kernel has no pidfd."""


def lead(
    forked: Forked,
    module: str,
    table: Table,
    chosen: tuple[steps.Step, ...] = first.LEADER_STEPS,
) -> NoReturn:
    """Take the leader's steps, then watch the service. Leaves by `_exit`, always."""
    try:
        if forked.report is not None:  # the launcher's ends: a fresh interpreter has none of them
            os.close(forked.report.fileno())
            os.close(forked.sender)
        try:
            fork_first.apply_steps(chosen, forked, table)
        except errors.ForkfirstError as error:
            fork_first.report_refusal(forked.report_to, error)
            session.leave(error.exit_status)
        if forked.child == 0:
            from forkfirst.stages import child  # noqa: PLC0415 - the service's own code

            child.wait_for_plan(forked, module, table)
        os.close(forked.receiver)
        _watch(forked.child, forked.report_to)
    except (OSError, ImportError) as error:  # no descriptor is left to read our own code, say
        failure = fork_first.explain("watch the service", error)
        fork_first.report_refusal(forked.report_to, failure)
        session.leave(errors.SystemRefusedError.exit_status)
    except BaseException:  # noqa: BLE001 - whatever it was, the frames below are the launcher's
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exc()
    finally:
        session.leave(errors.ForkfirstError.exit_status)


def _watch(service: int, report_to: int) -> None:
    """Report the service's end; end the service if the launcher dies first.

    The launcher alone holds the reading end of the report, so its death shows on our writing end
    as POLLERR. That is no race with READY: a launcher that heard READY kills us before it leaves.
    """
    try:
        channel.send(report_to, "born", pid=service)
    except BrokenPipeError:
        os.killpg(0, signal.SIGKILL)
    from forkfirst.unix import children  # noqa: PLC0415 - while the service works already

    pidfd = children.open_pidfd(service)
    poller = select.poll()
    poller.register(report_to, 0)  # POLLERR is always reported
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    while True:
        events = dict(poller.poll(None if pidfd is not None else _WITHOUT_PIDFD))
        if report_to in events:
            os.killpg(0, signal.SIGKILL)  # the service, what it started, and ourselves
        raw = children.waitpid_nohang(service)
        if raw is not None:
            channel.send(report_to, "exited", raw=raw)
            session.leave(0)
