"""Programs for a template: each tells the test of its import, and each worker of what it has."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import tempfile
import types
from pathlib import Path
from typing import Any


def tell(text: str) -> None:
    with Path(os.environ["TELL"]).open("w", encoding="utf-8") as fifo:
        fifo.write(f"{text}\n")


class _Numpy(types.ModuleType):
    """Stands for numpy.random, whose global state does not know of forks."""

    state = 1

    def seed(self) -> None:
        self.state = int.from_bytes(os.urandom(8), "big")


NUMPY = sys.modules["numpy.random"] = _Numpy("numpy.random")
MARK = object()
tempfile.gettempdir()
signal.signal(signal.SIGUSR2, lambda *_: tell("usr2"))
tell(f"imported {os.getpid()}")


async def serve(context: Any) -> None:
    """Tell what is this worker's own, and serve."""
    own = {
        "pid": os.getpid(),
        "random": random.random(),  # noqa: S311 - no secret
        "numpy": NUMPY.state,
        "temporary": next(tempfile._get_candidate_names()),  # type: ignore[attr-defined]  # noqa: SLF001
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "usr1": signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
        "usr2": callable(signal.getsignal(signal.SIGUSR2)),
        "group": os.getpgrp() == os.getpgid(os.getppid()),
        "parent": os.getppid(),
        "gc": gc.isenabled(),
        "frozen": gc.get_freeze_count() > 0 and MARK is not None,
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a count is wanted
    }
    context.ready()
    tell(f"ready {json.dumps(own)}")
    await context.wait_stopping()


async def leave(context: Any) -> None:
    """End with a status of its own, when it is ready."""
    context.ready()
    os._exit(3)
