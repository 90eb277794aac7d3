"""Services to start: each says back what it is sent, on every listener that it was given."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket


def tell(text: str) -> None:
    """Let the test know where this program is."""
    with open(os.environ["TELL"], "w", encoding="utf-8") as fifo:  # noqa: PTH123 - cheap
        fifo.write(f"{text}\n")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while octets := await reader.read(65536):
        writer.write(octets)
        await writer.drain()
    writer.close()


async def serve(context: Any) -> None:
    """On asyncio or uvloop."""
    import asyncio  # noqa: PLC0415 - not for those that have another runtime

    servers = [  # kept: uvloop closes one that nobody refers to, when it is collected
        await asyncio.start_server(echo, sock=one)
        for sockets in context.listeners.values()
        for one in sockets
    ]
    context.ready(status=f"serving on {type(asyncio.get_running_loop()).__module__}")
    await context.wait_stopping()
    servers.clear()


async def serve_on_trio(context: Any) -> None:
    import trio  # noqa: PLC0415 - as above

    async def echo(stream: Any) -> None:
        async for octets in stream:
            await stream.send_all(octets)
        await stream.aclose()

    sockets = [one for several in context.listeners.values() for one in several]
    ours = [trio.SocketListener(trio.socket.from_stdlib_socket(one)) for one in sockets]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, ours)
        context.ready(status="serving on trio")
        await context.wait_stopping()
        nursery.cancel_scope.cancel()


def serve_plainly(context: Any) -> None:
    """Without a runtime: one connection after the other."""
    context.ready(status="serving on nothing")
    while True:
        connection, _ = context.listener().accept()
        _echo_plainly(connection)


def _echo_plainly(connection: socket.socket) -> None:
    with connection:
        while octets := connection.recv(65536):
            connection.sendall(octets)


async def wait(context: Any) -> None:
    """Be ready, and wait for the stop."""
    context.ready()
    await context.wait_stopping()


def wait_plainly() -> None:
    """Know nothing of forkfirst."""
    import signal  # noqa: PLC0415 - cheap

    signal.pause()


def serve_as_a_command() -> None:
    """Take the listeners as a service manager passes them."""
    import socket  # noqa: PLC0415 - as above

    assert os.environ["LISTEN_PID"] == str(os.getpid())
    listener = socket.socket(fileno=3)
    sys.stdout.write(f"serving {os.environ['LISTEN_FDNAMES']}\n")
    sys.stdout.flush()
    while True:
        connection, _ = listener.accept()
        _echo_plainly(connection)


if __name__ == "__main__":
    {"serve": serve_as_a_command}[sys.argv[1]]()
