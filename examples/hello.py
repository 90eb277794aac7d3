"""The smallest service: answers every connection, says when it is ready, stops when asked.

forkfirst start examples/hello.py:main --listen web=127.0.0.1:8000
curl http://127.0.0.1:8000/
forkfirst stop hello
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkfirst import Context

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request on one connection, until the client leaves."""
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(context: Context) -> None:
    """Serve until the service is asked to stop."""
    async with await asyncio.start_server(answer, sock=context.listener("web")):
        context.ready(status="serving")
        await context.wait_stopping()
