"""A program that declares its own service, and carries its commands."""

from __future__ import annotations

from typing import Any

import forkfirst


async def serve(context: Any) -> None:
    import asyncio  # noqa: PLC0415 - the law that this room is for

    from daemons import echo  # type: ignore[import-not-found] # noqa: PLC0415 - its neighbour

    for sockets in context.listeners.values():
        for one in sockets:
            await asyncio.start_server(echo, sock=one)
    context.ready(status="serving its own")
    await context.wait_stopping()


service = forkfirst.Service(
    program=serve, name="own", listen=("web=127.0.0.1:0",), env={"A": "b"}, grace_period=3.0
)

if __name__ == "__main__":
    service.main()
