"""Closed-loop clients in a process of their own, and what each window of time was like for them.

python benchmarks/asking.py ADDRESS CLIENTS    # a name on standard input begins a window

Each client asks again as soon as it has its answer: one half over a new connection each time, the
other over one that it keeps for as long as the server lets it. A request counts in every window in
which it was under way.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from time import monotonic
from typing import Any, NamedTuple

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = 6
_PATIENCE = 20.0
_UNUSABLE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError)


class Window(NamedTuple):
    """A time of its own; times are in milliseconds."""

    name: str
    answered: int
    slowest: float
    p99: float


class Asked(NamedTuple):
    """What the clients counted in all."""

    answered: int
    failures: list[str]
    windows: list[Window]

    def named(self, name: str) -> list[Window]:
        """Return the windows of that name."""
        return [one for one in self.windows if one.name == name]


class Clients:
    """The clients' process, while it runs."""

    def __init__(self, address: str, clients: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, address, str(clients)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def begin(self, window: str) -> None:
        """Begin a window; the one before ends."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(f"{window}\n")

    def end(self) -> Asked:
        """Let every client finish its request, and return what they counted."""
        out, _ = self._process.communicate(timeout=60)
        counted: dict[str, Any] = json.loads(out)
        windows = [Window(*one) for one in counted["windows"]]
        return Asked(counted["answered"], counted["failures"], windows)


class _Asking:
    def __init__(self, address: str, clients: int) -> None:
        self._address = address
        self._clients = clients
        self._over = False
        self._windows: list[tuple[str, list[float]]] = [("", [])]
        self._failures: list[str] = []
        self._answered = 0

    async def run(self) -> dict[str, Any]:
        listening = asyncio.create_task(self._listen())
        await asyncio.gather(*(self._ask(keeps=one % 2 == 0) for one in range(self._clients)))
        await listening
        return {
            "answered": self._answered,
            "failures": self._failures,
            "windows": [_sum_up(*one) for one in self._windows if one[0] and one[1]],
        }

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self._windows.append((line.decode().strip(), []))
        self._over = True

    async def _ask(self, *, keeps: bool) -> None:
        while not self._over:
            writer = None
            try:
                began, window = monotonic(), len(self._windows) - 1
                async with asyncio.timeout(_PATIENCE):
                    reader, writer = await _connect(self._address)
                more = True
                while more and not self._over and not reader.at_eof():
                    more = await _exchange(reader, writer) and keeps
                    took = monotonic() - began
                    self._answered += 1
                    for _, seconds in self._windows[window:]:
                        seconds.append(took)
                    began, window = monotonic(), len(self._windows) - 1
            except _UNUSABLE as error:
                self._failures.append(repr(error))
                await asyncio.sleep(0.001)
            finally:
                if writer is not None:
                    writer.close()


def _sum_up(name: str, seconds: list[float]) -> Window:
    seconds.sort()
    p99 = seconds[len(seconds) * 99 // 100]
    return Window(name, len(seconds), seconds[-1] * 1000, p99 * 1000)


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to HOST:PORT or to a path."""
    if address.startswith("/"):
        return await asyncio.open_unix_connection(address)
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Ask once; return whether the server keeps the connection."""
    async with asyncio.timeout(_PATIENCE):
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(BODY)
    if b" 200 " not in head:
        raise ConnectionError(head.partition(b"\r\n")[0].decode())
    return b"connection: close" not in head.lower()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_Asking(sys.argv[1], int(sys.argv[2])).run())))
