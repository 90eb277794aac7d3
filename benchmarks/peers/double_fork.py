"""What most programs carry: two forks by hand, and a launcher that leaves at once."""

from __future__ import annotations

import os
import sys

if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
null = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)
os.close(null)

import asyncio  # noqa: E402 - the daemon's own work begins here

import app  # noqa: E402

asyncio.run(app.serve(int(sys.argv[1])))
