"""Two forks by hand, done well: the launcher waits on a pipe until the port answers.

With a second argument, `early`, asyncio's module is imported before the fork.
"""

from __future__ import annotations

import os
import sys

if sys.argv[2:] == ["early"]:
    import asyncio  # the module only: no loop, no thread, no descriptor

reading, writing = os.pipe()
if os.fork():
    os.close(writing)
    os._exit(0 if os.read(reading, 1) else 1)
os.close(reading)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
null = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)
os.close(null)

import asyncio  # noqa: E402 - or here, in the child

import app  # noqa: E402

asyncio.run(app.serve(int(sys.argv[1]), writing))
