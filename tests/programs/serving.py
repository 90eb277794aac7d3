"""Programs that serve the listeners they were given."""

from __future__ import annotations

import asyncio
import builtins
import time
from typing import Any

tell: Any = getattr(builtins, "tell")  # noqa: B009 - given by the driver


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def with_start_server(context: Any) -> None:
    """Takes TCP and unix listeners alike."""
    for sockets in context.listeners.values():
        for one in sockets:
            await asyncio.start_server(answer, sock=one)
    context.ready()
    await context.wait_stopping()


async def with_start_unix_server(context: Any) -> None:
    server = await asyncio.start_unix_server(answer, sock=context.listener())
    context.ready()
    await context.wait_stopping()
    server.close()


async def with_a_stuck_server(context: Any) -> None:
    """Accepts nobody: so it shows how many may wait."""
    await asyncio.start_server(answer, sock=context.listener())
    tell("stuck")
    time.sleep(60)  # noqa: ASYNC251 - a loop that is stuck is the point


def with_a_stuck_loop_of_its_own(context: Any) -> None:
    asyncio.run(with_a_stuck_server(context))


def with_a_loop_of_its_own(context: Any) -> None:
    """Asyncio's loop, not the service's: what the service's protects from."""
    asyncio.run(with_start_unix_server(context))


async def with_an_own_path(context: Any) -> None:
    server = await asyncio.start_unix_server(answer, path="own.sock")
    context.ready()
    await context.wait_stopping()
    server.close()


async def with_trio(context: Any) -> None:
    import trio  # noqa: PLC0415 - not there for asyncio's programs

    async def echo(stream: Any) -> None:
        await stream.send_all(await stream.receive_some())
        await stream.aclose()

    sockets = [one for several in context.listeners.values() for one in several]
    ours = [trio.SocketListener(trio.socket.from_stdlib_socket(one)) for one in sockets]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, ours)
        context.ready()
        await context.wait_stopping()
        nursery.cancel_scope.cancel()


def with_accept(context: Any) -> None:
    """Blocks, as a plain function does."""
    context.ready()
    connection, _ = context.listener().accept()
    with connection:
        connection.sendall(connection.recv(100))
    context.wait_stopping_blocking()


async def takes_one_by_name(context: Any) -> None:
    tell("found", names=list(context.listeners), port=context.listener("b").getsockname()[1])
    tell("several", count=len(context.listeners["a"]))
