"""A service of ours that is edited while it is asked; its first line is what a test changes.

It answers each line with its version and its pid, and ends when all that it accepted is answered.
"""

from __future__ import annotations

VERSION = "one"

import asyncio  # noqa: E402 - below what is edited
import os  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    import socket

    from forkfirst import Context


async def _answer(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection:
        if await loop.sock_recv(connection, 4096):
            await loop.sock_sendall(connection, f"{VERSION} {os.getpid()}\n".encode())


async def main(context: Context) -> None:
    """Serve until it is asked to stop."""
    loop = asyncio.get_running_loop()
    listener = context.listener("web")
    under_way: set[asyncio.Task[None]] = set()

    def accept() -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return  # the other generation was faster
        connection.setblocking(False)  # noqa: FBT003 - the call has no name for it
        task = loop.create_task(_answer(connection))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    # Not a task that accepts: what it has accepted when it is cancelled would be lost.
    loop.add_reader(listener, accept)
    context.ready()
    await context.wait_stopping()
    loop.remove_reader(listener)
    await asyncio.gather(*under_way)
