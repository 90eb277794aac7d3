"""Clients that ask without pause, each as soon as it has its answer, and count what they get."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import Self

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Load:
    """Some clients in a thread: one half with a connection for each request, the other keeps them.

    Attributes:
        answered: How many requests were answered.
        failures: What happened instead, for each that was not.
        slowest: The longest that an answer took, in seconds.
        words: The bodies that came, in the order of their first appearance.
    """

    def __init__(self, address: tuple[str, int] | str, clients: int = 8) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.slowest = 0.0
        self.words: list[bytes] = []
        self._address = address
        self._clients = clients
        self._over = False
        self._enough = threading.Event()
        self._wanted = 1
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_more(self._clients)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def wait_for_more(self, answers: int) -> None:
        """Wait until so many more requests have been answered or have failed."""
        self._wanted = self.answered + len(self.failures) + answers
        self._enough.clear()
        assert self._enough.wait(30), (self.answered, self.failures[:5])

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask(keeps=one % 2 == 0) for one in range(self._clients)))

    async def _ask(self, *, keeps: bool) -> None:
        while not self._over:
            writer = None
            try:
                reader, writer = await self._connect()
                while not await self._exchange(reader, writer) and keeps and not self._over:
                    pass
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                kind = "kept" if keeps else "new"
                self.failures.append(f"{kind}: {error!r}")
                await asyncio.sleep(0)
            finally:
                if writer is not None:
                    writer.close()
            if self.answered + len(self.failures) >= self._wanted:
                self._enough.set()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._address, str):
            return await asyncio.open_unix_connection(self._address)
        return await asyncio.open_connection(*self._address)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once; return whether the server will close the connection."""
        began = monotonic()
        async with asyncio.timeout(20):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            word = await reader.readexactly(6)
        self.slowest = max(self.slowest, monotonic() - began)
        self.answered += 1
        if self.answered >= self._wanted:
            self._enough.set()
        if word not in self.words:
            self.words.append(word)
        return b"connection: close" in head.lower()
