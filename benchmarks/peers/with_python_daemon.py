"""The package python-daemon (PEP 3143)."""

from __future__ import annotations

import sys

import daemon

with daemon.DaemonContext(detach_process=True):
    import asyncio

    sys.path.insert(0, __file__.rpartition("/")[0])
    import app

    asyncio.run(app.serve(int(sys.argv[1])))
