"""The program that every peer runs: an asyncio server that answers its own pid.

By itself it is the bare program, `python app.py PORT`, which all others are held against.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read one line, answer with the pid, hang up."""
    await reader.readline()
    writer.write(b"%d\n" % os.getpid())
    await writer.drain()
    writer.close()


async def serve(port: int, ready_descriptor: int = -1) -> None:
    """Serve until cancelled; once the port answers, write a byte where the starter listens."""
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    if ready_descriptor >= 0:
        os.write(ready_descriptor, b"1")
        os.close(ready_descriptor)
    notify = os.environ.get("NOTIFY_SOCKET")
    if notify:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(b"READY=1", notify.replace("@", "\0", 1))
    await server.serve_forever()


async def main(context: Any) -> None:
    """Serve as forkfirst has it: on a listener that is there already."""
    server = await asyncio.start_server(answer, sock=context.listener("web"))
    context.ready()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
