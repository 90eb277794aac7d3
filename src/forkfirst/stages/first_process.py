"""What a process 1 owes: reap every orphan, forward signals, exit as the program did.

The first process of a container is the parent of every process that lost its own, and the kernel
delivers to it only signals that it has handlers for. So it forks once: this process keeps no
runtime and does only that; the service is its child.

Source: signal(7), wait(2), pid_namespaces(7).
"""

from __future__ import annotations

import os
import signal

from forkfirst import errors
from forkfirst.stages import apply, taking
from forkfirst.unix import children, session, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table

_NOT_FORWARDED = (
    signal.SIGCHLD,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


def run(start: Start, table: Table = apply.TABLE) -> NoReturn:
    """Run the service as a child of this process; leave with its exit status.

    Raises:
        ForkfirstError: A step of the launcher failed; nothing is left.
    """
    try:
        taking.apply_steps(start.plan.launcher, start, table)
    except errors.ForkfirstError as error:
        start.undo()
        error.args = (f'cannot start "{start.plan.service.name}": {error}',)
        raise
    if start.child == 0:
        signals.unblock_all()
        from forkfirst.stages import child  # noqa: PLC0415 - the service's own code

        child.serve(start, table)
    start.let_go()  # a listener that the service closes must not be heard by us, who never answer
    _forward_signals(start.child)
    session.leave(children.exit_status(_reap_until_gone(start.child)))


def _forward_signals(pid: int) -> None:
    def forward(number: int, _: FrameType | None) -> None:
        try:
            os.kill(pid, number)  # our own child, not reaped while this handler can run for it
        except ProcessLookupError:
            return

    for number in signal.valid_signals():
        if number not in _NOT_FORWARDED:
            try:
                signal.signal(number, forward)
            except OSError:
                continue  # the C library keeps two for itself
    signals.unblock_all()


def _reap_until_gone(pid: int) -> int:
    """Reap every child that ends, until *pid* does; return its raw status."""
    while True:
        ended, raw = os.wait()
        if ended == pid:
            return raw
