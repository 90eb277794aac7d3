"""Services on every runtime that say one word to whoever connects; a test writes it anew."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket

WORD = b"first\n"


async def serve(context: Any) -> None:
    import asyncio  # noqa: PLC0415 - not for those that have another runtime

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WORD)
        writer.close()

    server = await asyncio.start_server(say, sock=context.listener())
    context.ready()
    await context.wait_stopping()
    server.close()


async def serve_on_trio(context: Any) -> None:
    import trio  # noqa: PLC0415 - as above

    async def say(stream: Any) -> None:
        await stream.send_all(WORD)
        await stream.aclose()

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(context.listener()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, say, [listener])
        context.ready()
        await context.wait_stopping()
        nursery.cancel_scope.cancel()


async def serve_on_anyio(context: Any) -> None:
    """What anyio's own listeners do when there is one already."""
    import anyio  # noqa: PLC0415 - as above
    from anyio.abc import SocketListener  # noqa: PLC0415 - as above

    async def say(stream: Any) -> None:
        await stream.send(WORD)
        await stream.aclose()

    listener = await SocketListener.from_socket(context.listener())
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, say)
        context.ready()
        await context.wait_stopping()
        group.cancel_scope.cancel()


def serve_plainly(context: Any) -> None:
    """In two threads, each blocked in accept(2) for nearly always."""
    listener = context.listener()
    threading.Thread(target=_serve_blocking, args=(listener,), daemon=True).start()
    context.ready()
    _serve_blocking(listener)


def _serve_blocking(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(WORD)
