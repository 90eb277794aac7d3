"""Runs one command as `stages.child` would, and tells the test what it sees.

    command_driver.py OPTIONS REPORT_FD COMMAND [ARGUMENT ...]

OPTIONS is a JSON object: the fields of `Command` but argv, `grace`, `listeners` (names to
descriptors), and `terminal` (the path of one that is to control the session).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from forkfirst import errors
from forkfirst.runtime import command
from forkfirst.runtime.context import Context
from forkfirst.unix import prctl


def _tell(what: str, **facts: Any) -> None:
    os.write(REPORT, json.dumps({"what": what, **facts}).encode() + b"\n")


def _list_descriptors() -> list[int]:
    return sorted(int(one.name) for one in Path("/proc/self/fd").iterdir())


options = json.loads(sys.argv[1])
REPORT = int(sys.argv[2])
os.set_inheritable(REPORT, False)  # noqa: FBT003 - it has no name
prctl.set_parent_death_signal(signal.SIGKILL)
listeners = options.pop("listeners", [])
for _, fd in listeners:
    os.set_inheritable(fd, False)  # noqa: FBT003 - it has no name
terminal = options.pop("terminal", "")
if terminal:  # the first one that a session's leader opens becomes the session's own
    os.dup2(os.open(terminal, os.O_RDWR), 0)
context = Context(
    name="tested",
    listeners=[(name, fd) for name, fd in listeners],
    on_ready=lambda status: _tell("ready", status=status),
    on_status=lambda text: _tell("status", text=text),
    on_stopping=lambda: _tell("stopping"),
    grace_seconds=options.pop("grace", 30.0),
)
before = _list_descriptors()
cpu_before = time.process_time()
try:
    status = command.run(command.Command(argv=tuple(sys.argv[3:]), **options), context)
except errors.ForkfirstError as error:
    _tell("refused", text=str(error), hint=error.hint)
    status = error.exit_status
left = sorted(set(_list_descriptors()) - set(before))
_tell("ended", status=status, left=left, cpu=time.process_time() - cpu_before)
signal.raise_signal(signal.SIGTERM)  # the clean-up after it is not cut short
sys.exit(status)
