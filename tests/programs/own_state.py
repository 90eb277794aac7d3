"""A service that writes down the state of its own process, as its first and only deed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def look() -> dict[str, Any]:
    """Return what the kernel says of this process, and what Python does."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        has_terminal = True
    except OSError:
        has_terminal = False
    return {
        "status": {key: value.strip() for key, value in status.items()},
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgrp(),
        "session": os.getsid(0),
        "terminal": int(stat[4]),
        "has terminal": has_terminal,
        "directory": str(Path.cwd()),
        "descriptors": _list_descriptors(),
        "inheritable": [fd for fd in _list_descriptors() if _is_inheritable(int(fd))],
        "environment": dict(os.environ),
        "streams": [getattr(sys, name) is not None for name in ("stdin", "stdout", "stderr")],
        "stdin": sys.stdin.read() if sys.stdin else None,
    }


def _list_descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - not a generator that is itself open
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
        except FileNotFoundError:
            continue  # the listing's own
    return found


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def tell() -> None:
    Path(os.environ["STATE"]).write_text(json.dumps(look()))


def main(context: Any) -> None:
    tell()
    context.ready()
    context.wait_stopping_blocking()


async def main_on_asyncio(context: Any) -> None:
    tell()
    context.ready()
    await context.wait_stopping()


if __name__ == "__main__":
    tell()
