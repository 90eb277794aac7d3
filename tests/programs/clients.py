"""Many clients of one service in one process: `clients.py HOW COUNT VERSION [replace]`.

Each says "hello" to the service and hears it back; then all of it is printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import trio

import forkfirst

VERSION = sys.argv[3]
REPLACE = sys.argv[4:] == ["replace"]
SERVICE = forkfirst.Service(
    program=f"{Path(__file__).with_name('daemons.py')}:{os.environ.get('SERVE', 'serve')}",
    name="app",
    listen=(os.environ["LISTEN"],),
    version=VERSION,
)


def connect() -> Any:
    return forkfirst.connect("app", service=SERVICE, replace=REPLACE)


def with_threads(count: int) -> list[str]:
    """Block one thread for each."""
    heard: list[str] = []

    def one() -> None:
        with connect() as stream:
            stream.sendall(b"hello\n")
            heard.append(stream.recv(100).decode())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return heard


def with_asyncio(count: int) -> list[str]:
    async def one() -> str:
        async with connect() as (reader, writer):
            writer.write(b"hello\n")
            return str((await reader.readline()).decode())

    async def main() -> list[str]:
        return list(await asyncio.gather(*(one() for _ in range(count))))

    return asyncio.run(main())


def with_trio(count: int) -> list[str]:
    heard: list[str] = []

    async def one() -> None:
        async with connect() as stream:
            await stream.send_all(b"hello\n")
            heard.append((await stream.receive_some(100)).decode())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)

    trio.run(main)
    return heard


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[f"with_{sys.argv[1]}"](int(sys.argv[2]))))
