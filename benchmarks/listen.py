"""Sockets held by somebody else: who gets in when all come at once, and when the first is answered.

python benchmarks/listen.py              # writes benchmarks/RESULTS.md
python benchmarks/listen.py --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Case, describe_machine, interleave, put_section, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from measure import Samples

_CLIENTS = 64
_PATIENCE_SECONDS = 2.0
"""How long a client may wait: a connection that finds no room tries again after 1, 3, 7 seconds."""

_DEADLINE_SECONDS = 30.0
_RATIO_BAR = 1.10
_FORKFIRST = (str(Path(sys.executable).with_name("forkfirst")),)
_ACTIVATE = "systemd-socket-activate"
_BARE, _OURS = "bare program", "`forkfirst run`"

# Holds the sockets and accepts nothing: what there is room for is the queue alone.
_NEVER_ACCEPTS = ("sh", "-c", "read line")

_BARE_PROGRAM = """
import asyncio, socket

async def answer(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(answer, sock=socket.socket(fileno=3))
    async with server:
        await server.serve_forever()

if __name__ == "__main__":
    asyncio.run(main())
"""
_OUR_PROGRAM = """
import asyncio

async def answer(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def main(context):
    server = await asyncio.start_server(answer, sock=context.listener("web"))
    context.ready()
    await context.wait_stopping()
    server.close()
"""


@contextlib.contextmanager
def _running(words: Sequence[str], pattern: str) -> Iterator[int]:
    """Run a command that says on which port it listens; give the port."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None  # noqa: S101 - asked for
    try:
        said = b""
        while not (found := re.search(pattern.encode(), said)):
            octets = os.read(process.stderr.fileno(), 4096)
            if not octets:
                message = f"{words}: {said.decode()}"
                raise RuntimeError(message)
            said += octets
        yield int(found[1])
    finally:
        process.kill()
        process.communicate()


def _choose_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _activated(command: Sequence[str], *variables: str) -> tuple[list[str], str]:
    passed = [word for variable in variables for word in ("-E", variable)]
    words = [_ACTIVATE, *passed, "-l", f"127.0.0.1:{_choose_port()}", *command]
    return words, r"Listening on \S+?:(\d+)"


# -- all at once -----------------------------------------------------------------------------------


def _count_connected(port: int) -> dict[str, float]:
    """Connect all clients at once; return how many of them are in after the time they have."""
    poll = select.poll()
    with contextlib.ExitStack() as clients:
        waiting: dict[int, socket.socket] = {}
        for _ in range(_CLIENTS):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)  # noqa: FBT003 - the call has no name for it
            client.connect_ex(("127.0.0.1", port))
            waiting[client.fileno()] = client
            poll.register(client, select.POLLOUT)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while waiting and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                poll.unregister(fd)
                del waiting[fd]
    return {"connected": _CLIENTS - len(waiting)}


def _list_holders() -> dict[str, tuple[list[str], str]]:
    said = r"127\.0\.0\.1:(\d+) is descriptor 3"
    listen = [*_FORKFIRST, "listen", "-s", "tcp::0"]
    ways = {
        "`forkfirst listen`": ([*listen, "--", *_NEVER_ACCEPTS], said),
        "`forkfirst listen -b 1`, the default of systemfd": (
            [*listen, "-b", "1", "--", *_NEVER_ACCEPTS],
            said,
        ),
    }
    if shutil.which(_ACTIVATE):
        ways[f"`{_ACTIVATE}`"] = _activated(_NEVER_ACCEPTS)
    return ways


def measure_all_at_once() -> list[list[str]]:
    """Return a row for each way to hold a socket: how many of the clients got in."""
    rows = []
    for name, (words, pattern) in _list_holders().items():
        with _running(words, pattern) as port:
            connected = _count_connected(port)["connected"]
        rows.append([name, f"{connected:.0f} of {_CLIENTS}"])
    return rows


# -- the first reply -------------------------------------------------------------------------------


def _time_first_reply(command: Sequence[str], directory: str) -> Mapping[str, float]:
    words, pattern = _activated(command, f"FORKFIRST_STATE_DIR={directory}")
    with _running(words, pattern) as port:
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), _DEADLINE_SECONDS) as client:
            client.sendall(b"hello\n")
            if client.recv(16) != b"hello\n":
                message = f"{command} does not answer"
                raise RuntimeError(message)
        return {"ms": 1000 * (time.perf_counter() - began)}


def measure_first_reply(rounds: int, directory: str) -> Samples:
    """Return how long the client waits that makes the manager start the program."""
    bare = Path(directory) / "bare.py"
    ours = Path(directory) / "ours.py"
    bare.write_text(_BARE_PROGRAM)
    ours.write_text(_OUR_PROGRAM)
    run = [*_FORKFIRST, "run", "--listen", "web=127.0.0.1:0", f"{ours}:main"]
    return interleave(
        [
            Case(_BARE, lambda: _time_first_reply([sys.executable, str(bare)], directory)),
            Case(_OURS, lambda: _time_first_reply(run, directory)),
        ],
        rounds,
    )


def _write_first_reply(samples: Samples) -> str:
    ratio = samples.ratio(_OURS, _BARE, "ms")
    verdict = "kept" if ratio.median <= _RATIO_BAR else "**not kept**"
    rows = [[name, f"{samples.figure(name, 'ms')}"] for name in (_BARE, _OURS)]
    rows.append([f"÷ bare ≤ {_RATIO_BAR:.2f}", f"{ratio:.3f} {verdict}"])
    return write_table(("", "from connect to the reply, ms"), rows)


def main() -> None:
    """Measure, and put it into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    os.environ.pop("PYTHONUNBUFFERED", None)
    version = ".".join(platform.python_version_tuple()[:2])
    parts = [
        f"## Sockets held by another, {describe_machine()}\n",
        f"{_CLIENTS} clients at once, before anybody accepts, each for {_PATIENCE_SECONDS:g} s:\n",
        write_table(("held by", "connected"), measure_all_at_once()),
    ]
    if shutil.which(_ACTIVATE):
        with tempfile.TemporaryDirectory() as directory:
            samples = measure_first_reply(rounds, directory)
        parts += [
            f"The first reply of a program that `{_ACTIVATE}` starts for it, {rounds} rounds:\n",
            _write_first_reply(samples),
        ]
    else:
        parts.append(f"Not measured: the first reply under {_ACTIVATE}, which is not here.\n")
    text = "\n".join(parts)
    print(text)
    put_section(f"listen on {version}", text)


if __name__ == "__main__":
    main()
