"""A program with many objects that are made when it is imported, for workers.py to serve.

LARGE_MIB says how much memory they take. With LARGE_READ each request reads one of them.

TELL names a fifo that hears of each worker when it serves, and when it had begun to be one (see
probe). At SIGUSR1 a worker makes the full collection that a long life brings sooner or later.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from forkfirst import Context

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"
READS = bool(os.environ.get("LARGE_READ"))


def make_objects(mebibytes: int) -> list[dict[str, object]]:
    """Return many small objects that take so much memory."""
    made: list[dict[str, object]] = []
    until = read_resident() + mebibytes * 2**20
    while mebibytes and read_resident() < until:
        first = len(made)
        made += [{"id": n, "name": f"n{n}", "tags": [n]} for n in range(first, first + 250)]
    return made


def read_resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


OBJECTS = make_objects(int(os.environ["LARGE_MIB"]))


class Hello(asyncio.Protocol):
    """One connection, on which each request is answered."""

    answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that has come."""
        for _ in range(data.count(b"\r\n\r\n")):
            Hello.answered += 1
            if READS:
                str(OBJECTS[Hello.answered * 7919 % len(OBJECTS)]["name"])
            self.transport.write(ANSWER)


def tell(word: str, *times: float) -> None:
    """Say *word*, this process, and *times*."""
    line = " ".join([word, str(os.getpid()), *map(repr, times)])
    fifo = os.open(os.environ["TELL"], os.O_WRONLY)
    os.write(fifo, f"{line}\n".encode())
    os.close(fifo)


def collect() -> None:
    """Collect everything, and say so."""
    gc.collect()
    tell("collected")


async def main(context: Context) -> None:
    """Serve until the service is asked to stop."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, collect)
    server = await loop.create_server(Hello, sock=context.listener("web"))
    context.ready()
    tell("ready", getattr(sys, "began_at", 0.0), time.monotonic())
    await context.wait_stopping()
    server.close()
