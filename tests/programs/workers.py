"""Programs for many workers: each tells the test that it is ready, and with what pid."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any


def tell(text: str) -> None:
    with Path(os.environ["TELL"]).open("w", encoding="utf-8") as fifo:
        fifo.write(f"{text}\n")


async def serve(context: Any) -> None:
    """Do as a connection says: "who" for the pid, "hang", "exit N"."""

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match (await reader.readline()).split():
            case [b"hang"]:
                time.sleep(600)  # noqa: ASYNC251 - a loop that is stuck is the point
            case [b"exit", status]:
                os._exit(int(status))
        writer.write(b"%d\n" % os.getpid())
        writer.close()
        context.served()

    listeners = [one for several in context.listeners.values() for one in several]
    for one in listeners:
        await asyncio.start_server(obey, sock=one)
    tell(f"ready {os.getpid()} {' '.join(context.listeners)}")
    context.ready(status="serving")
    await context.wait_stopping()
    tell(f"stopping {os.getpid()}")
