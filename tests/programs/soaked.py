"""examples/hello.py with a ledger: each request is written down, when begun and when answered."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

sys.path.insert(0, os.environ["EXAMPLES"])

import hello

WORD = "first"


class Soaked(hello.Hello):
    """Each answer says the word and the process."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        path = f"{os.environ['LEDGER']}/{os.getpid()}"
        self.ledger = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As the example, and with the books."""
        task = asyncio.current_task()
        self.connections.add(task)
        try:
            while request := await self.read_request(reader):
                number, _, milliseconds = request.split(maxsplit=2)[1][1:].decode().partition("?")
                os.write(self.ledger, f"begun {number}\n".encode())
                await asyncio.sleep(int(milliseconds) / 1000)
                last = self.context.stopping
                body = f"{WORD} {os.getpid()} {number}\n".encode()
                close = b"Connection: close\r\n" if last else b""
                head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (close, len(body))
                writer.write(head + body)
                await writer.drain()
                os.write(self.ledger, f"ended {number}\n".encode())
                if last:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()
            self.connections.discard(task)


async def main(context: Any) -> None:
    soaked = Soaked(context)
    server = await asyncio.start_server(soaked.answer, sock=context.listener("web"))
    context.ready(WORD)
    await context.wait_stopping()
    server.close()
    await soaked.finish()
