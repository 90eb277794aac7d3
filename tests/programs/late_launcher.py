"""A start whose launcher looks for the first time when the service has ended, and was reaped.

late_launcher.py FILE: as on a machine with too much to do, but for certain.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from forkfirst import config, errors
from forkfirst.plan import order, steps
from forkfirst.stages import apply, fork_first, launch, probe
from forkfirst.stages.start import Start

if TYPE_CHECKING:
    from forkfirst.plan.steps import AwaitReady


def wait_late(step: AwaitReady, start: Start) -> None:
    """Wait until the leader has told all that it knows, and has left; then do the step."""
    assert start.forked is not None
    os.waitid(os.P_PID, start.forked.child, os.WEXITED | os.WNOWAIT)
    apply.TABLE[steps.AwaitReady](step, start)


def main(file: str) -> int:
    origin = config.Origin("test", str(Path(file).parent))
    service = config.make_declaration("app", [({"target": f"{file}:main"}, origin)])
    plan = order.make_plan(service, probe.read_host(detaching=True))
    table = apply.with_changes({steps.AwaitReady: wait_late})
    try:
        launch.launch(Start(plan, forked=fork_first.fork_service(table)), table)
    except errors.ForkfirstError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
