"""Runs a program text in a fresh interpreter with one thread, and hears what its processes tell.

The program has `tell(**facts)`, which any of its processes may call, forked ones included. The end
of file of what is told is the barrier: it comes when the last of them has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 40.0
_PRELUDE = """\
import json, os, sys
TELL = int(sys.argv.pop(1))
def tell(**facts):
    os.write(TELL, json.dumps(facts).encode() + b"\\n")
"""


class Outcome(NamedTuple):
    """How the process that was started ended, and what it and its children said."""

    status: int
    told: list[dict[str, Any]]
    out: str
    err: str


def run_fresh(program: str, *arguments: str | Path | int, closed: tuple[int, ...] = ()) -> Outcome:
    """Run *program* with the standard descriptors of *closed* closed, and wait for all of it."""
    reading, writing = os.pipe()
    # Far above what the program opens, and inherited.
    tell = fcntl.fcntl(writing, fcntl.F_DUPFD, 200)
    os.close(writing)
    with (
        Path(os.devnull).open("rb") as null,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        actions: list[tuple[int, int, int] | tuple[int, int]] = [
            (os.POSIX_SPAWN_DUP2, source.fileno(), target)
            for target, source in enumerate((null, out, err))
        ]
        actions += [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in closed]
        # It would hide every fault of buffering.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        words = [sys.executable, "-c", _PRELUDE + program, str(tell), *map(str, arguments)]
        pid = os.posix_spawn(sys.executable, words, environment, file_actions=actions)
        os.close(tell)
        try:
            text = _read_to_end(reading)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(reading)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            outputs = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err)]
    return Outcome(status, [json.loads(line) for line in text.splitlines()], *outputs)


def _read_to_end(reading: int) -> bytes:
    deadline = time.monotonic() + SECONDS
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    text = b""
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(reading, 65536)
        if not chunk:
            return text
        text += chunk
    message = f"the program did not end; it told {text!r}"
    raise TimeoutError(message)
