"""The package daemonocle."""

from __future__ import annotations

import sys
from pathlib import Path

import daemonocle


def run() -> None:
    """Serve, in the daemon."""
    import asyncio  # noqa: PLC0415 - after the fork

    import app  # noqa: PLC0415

    asyncio.run(app.serve(int(sys.argv[1])))


pid_file = Path(sys.argv[2]) / "daemonocle.pid"
daemonocle.Daemon(name="bench", worker=run, pid_file=str(pid_file)).do_action("start")
