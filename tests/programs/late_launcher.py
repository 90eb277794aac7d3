"""A start whose launcher waits for something before it waits for READY.

late_launcher.py FILE: until the service has ended and was reaped, as on a machine with too much to
do, but for certain.
late_launcher.py FILE SECONDS: until the program has told that it is where it hangs; only then the
SECONDS begin that it may take to be ready.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from forkfirst import config, errors
from forkfirst.plan import order, preparation
from forkfirst.stages import apply, fork_first, launch, probe
from forkfirst.stages.start import Start

if TYPE_CHECKING:
    from forkfirst.plan.preparation import AwaitReady


def wait_for_the_end(step: AwaitReady, start: Start) -> None:
    """Wait until the leader has told all that it knows, and has left; then do the step."""
    assert start.forked is not None
    os.waitid(os.P_PID, start.forked.child, os.WEXITED | os.WNOWAIT)
    apply.TABLE[preparation.AwaitReady](step, start)


def wait_until_told(step: AwaitReady, start: Start) -> None:
    """Wait until the program has said where it is; then do the step."""
    Path(os.environ["HANGS"]).read_text()
    apply.TABLE[preparation.AwaitReady](step, start)


def main(file: str, seconds: str = "") -> int:
    os.environ["LAUNCHER"] = str(os.getpid())
    settings = {"target": f"{file}:main", "ready-timeout": seconds or None}
    origin = config.Origin("test", str(Path(file).parent))
    service = config.make_declaration("app", [(settings, origin)])
    plan = order.make_plan(service, probe.read_host(detaching=True))
    wait = wait_until_told if seconds else wait_for_the_end
    table = apply.with_changes({preparation.AwaitReady: wait})
    try:
        launch.launch(Start(plan, forked=fork_first.fork_service(table)), table)
    except errors.ForkfirstError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
