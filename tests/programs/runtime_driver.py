"""Runs one program of a test on one runtime, and tells the test what it sees, line by line.

    runtime_driver.py RUNTIME FILE:NAME GRACE REPORT_FD [LISTENER=FD ...]

It is what `stages.child` is to a real service, without the service around it.
"""

from __future__ import annotations

import builtins
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from forkfirst.runtime import target
from forkfirst.runtime.context import Context
from forkfirst.unix import prctl


def _tell(what: str, **facts: Any) -> None:
    os.write(REPORT, json.dumps({"what": what, **facts}).encode() + b"\n")


def _count() -> dict[str, int]:
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "python_threads": threading.active_count(),
        "children": len(_list_children()),
    }


def _list_children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()


runtime, program, grace, report, *listeners = sys.argv[1:]
REPORT = int(report)
prctl.set_parent_death_signal(signal.SIGKILL)
context = Context(
    name="tested",
    listeners=[(name, int(fd)) for name, _, fd in (one.partition("=") for one in listeners)],
    on_ready=lambda status: _tell("ready", status=status),
    on_status=lambda text: _tell("status", text=text),
    on_stopping=lambda: _tell("stopping"),
    grace_seconds=float(grace),
)
setattr(builtins, "tell", _tell)  # noqa: B010 - for the programs, which have no other way to it
setattr(builtins, "context_of_driver", context)  # noqa: B010 - the same
main = target.load(program)
module = importlib.import_module(f"forkfirst.runtime.{runtime}")
if runtime == "uvloop_":
    module.uvloop.new_event_loop().close()  # libuv keeps one pipe for signals, for the process
before = _count()
status = module.run(main, context)
faulthandler.cancel_dump_traceback_later()  # it stays armed on purpose, with its thread
deadline = time.monotonic() + 3
while _count()["threads"] > before["threads"] and time.monotonic() < deadline:
    pass  # a thread that was told to end is the kernel's for some microseconds more
_tell("ended", status=status, before=before, after=_count(), is_ready=context.is_ready)
if os.environ.get("SIGNAL_AFTER_THE_END"):
    signal.raise_signal(signal.SIGTERM)
    faulthandler.cancel_dump_traceback_later()
    _tell("alive")
sys.exit(status)
