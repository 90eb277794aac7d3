"""A service that says back what it hears over a websocket, and nothing else is done for it."""

from __future__ import annotations

from typing import Any

from websockets.asyncio.server import ServerConnection, serve

WORD = "first"


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(f"{WORD} heard {message!s}")


async def main(context: Any) -> None:
    server = await serve(echo, sock=context.listener("web"))
    context.ready()
    await context.wait_stopping()
    server.close()
    await server.wait_closed()
