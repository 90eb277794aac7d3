"""The package daemonize."""

from __future__ import annotations

import sys
from pathlib import Path

from daemonize import Daemonize


def run() -> None:
    """Serve, in the daemon."""
    import asyncio  # noqa: PLC0415 - after the fork

    import app  # noqa: PLC0415

    asyncio.run(app.serve(int(sys.argv[1])))


pid_file = Path(sys.argv[2]) / "daemonize.pid"
Daemonize(app="bench", pid=str(pid_file), action=run).start()
