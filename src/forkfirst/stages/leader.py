"""The session leader, when it has forked the service: it watches it until READY.

It is the only parent that the service has, so only here can its true end be seen: an exit status,
or the signal that killed it. It also knows when the launcher dies, and then ends what was half
started. It has one thread and no runtime, and lives for as long as a start takes.
"""

from __future__ import annotations

import os
import select
import signal

from forkfirst.unix import channel, children, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_WITHOUT_PIDFD = 50
"""Milliseconds between two looks at the service, where the kernel has no pidfd."""


def watch(service: int, report_to: int, *, outlives: bool = False) -> NoReturn:
    """Report the end of *service* and leave; if the launcher dies first, so does the service.

    Unless it *outlives* who started it: a successor does.

    The launcher alone holds the reading end of the report, so its death shows on our writing end
    as POLLERR. That is no race with READY: a launcher that heard READY kills us before it leaves.
    """
    pidfd = children.open_pidfd(service)
    poller = select.poll()
    poller.register(report_to, 0)  # POLLERR is always reported
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    while True:
        events = dict(poller.poll(None if pidfd is not None else _WITHOUT_PIDFD))
        if report_to in events:
            _leave_unheard(outlives=outlives)
        raw = children.waitpid_nohang(service)
        if raw is not None:
            channel.send(report_to, "exited", raw=raw)
            session.leave(0)


def _leave_unheard(*, outlives: bool) -> NoReturn:
    if not outlives:
        os.killpg(0, signal.SIGKILL)  # the service, what it started, and ourselves
    session.leave(0)
