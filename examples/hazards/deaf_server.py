"""A server that goes deaf: a child forked by it leaves politely.

`sys.exit()` in the child unwinds the parent's coroutines and closes the parent's server: in memory,
a copy; in the epoll, the original. The parent is alive, idle, and answers nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys

from scene import PATIENCE, ask_guard, describe_wait, say


async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer and hang up."""
    writer.write(b"hello")
    writer.close()


async def serve(send: int, child_may_leave: int, child_is_here: int) -> None:
    """Listen, fork a child that leaves, and go on."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        await server.start_serving()
        ask_guard("deaf-server")
        if os.fork() == 0:
            os.read(child_may_leave, 1)
            sys.exit(0)
        os.close(child_is_here)
        os.write(send, str(server.sockets[0].getsockname()[1]).encode())
        await server.serve_forever()


def ask(port: int) -> bytes:
    """Return what the server answers, or nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE / 4) as connection:
        try:
            return connection.recv(10)
        except TimeoutError:
            return b""


def main() -> int:
    """Ask a server before and after its child has left."""
    receive, send = os.pipe()
    wait, leave = os.pipe()
    child_gone, child_is_here = os.pipe()
    server = os.fork()  # a process of its own, without a runtime yet: this fork is fine
    if server == 0:
        os.close(leave)
        with contextlib.suppress(SystemExit):
            asyncio.run(serve(send, wait, child_is_here))
        os._exit(0)
    os.close(child_is_here)
    port = int(os.read(receive, 10))
    before = [ask(port) for _ in range(5)]
    say(f"before: {sum(map(bool, before))} of 5 connections answered")
    os.close(leave)
    os.read(child_gone, 1)
    after = [ask(port) for _ in range(5)]
    say(f"after its child called sys.exit(): {sum(map(bool, after))} of 5 answered")
    say(f"the server (pid {server}) is alive, {describe_wait(server)}")
    os.kill(server, 9)
    os.waitpid(server, 0)
    return 0 if all(before) and not any(after) else 1


if __name__ == "__main__":
    sys.exit(main())
