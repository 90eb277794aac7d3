"""The smallest service that loses nothing: when it is asked to stop, it finishes what it began.

forkfirst start examples/hello.py:main --listen web=127.0.0.1:8000 --workers 2
curl http://127.0.0.1:8000/
forkfirst reload hello
forkfirst stop hello
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkfirst import Context

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"
LAST_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n"
LINGER = 1.0
"""Seconds that a quiet connection stays open for one more request when the service stops.

To close it at once would cut off a request that is on its way, and the client cannot know."""

TURNS = 8
"""Turns of the loop in which a connection that was accepted a moment ago reaches its handler."""


class Hello:
    """The connections of one process."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.connections: set[asyncio.Task[None] | None] = set()
        self.waits: set[asyncio.Timeout] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request on one connection, until the client leaves or the service stops."""
        task = asyncio.current_task()
        self.connections.add(task)
        try:
            while await self.read_request(reader):
                last = self.context.stopping
                writer.write(LAST_ANSWER if last else ANSWER)
                await writer.drain()
                if last:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()
            self.connections.discard(task)

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """Wait for a request; when the service stops, only a little longer."""
        limit = LINGER if self.context.stopping else None
        async with asyncio.timeout(limit) as wait:
            self.waits.add(wait)
            try:
                return await reader.readuntil(b"\r\n\r\n")
            finally:
                self.waits.discard(wait)

    async def finish(self) -> None:
        """Wait until every connection has had its last answer; the server is closed already."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        until = asyncio.get_running_loop().time() + LINGER
        for wait in self.waits:
            wait.reschedule(until)
        while self.connections:
            await asyncio.wait([one for one in self.connections if one is not None])


async def main(context: Context) -> None:
    """Serve until the service is asked to stop."""
    hello = Hello(context)
    server = await asyncio.start_server(hello.answer, sock=context.listener("web"))
    context.ready(status="serving")
    await context.wait_stopping()
    server.close()
    await hello.finish()
