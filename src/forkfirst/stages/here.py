"""The foreground: all steps of a start in the process that the command made, without any fork."""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.stages import apply, taking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table


def run(start: Start, table: Table = apply.TABLE) -> NoReturn:
    """Run the service in this process, and exit with its status. Makes no process."""
    try:
        taking.apply_steps(start.plan.launcher, start, table)
        taking.apply_steps(start.plan.worker, start, table)
    except errors.ForkfirstError as error:
        start.undo()
        error.args = (f'cannot start "{start.plan.service.name}": {error}',)
        if start.manager is not None or "NOTIFY_SOCKET" in os.environ:
            from forkfirst.stages.managed import telling  # noqa: PLC0415 - only where there is one

            telling.tell_failure(start, error)
        raise
    raise AssertionError  # the last step leaves
