"""Clients that give every request a number, and a ledger of what became of each.

What the clients write down and what the service's processes wrote down must agree to the last one.
"""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE = 30.0
_REST = 0.008
"""Seconds from an answer to the same client's next request: not all processors are for clients."""

_MARGIN = 1.0
"""Seconds after a kill in which a client may still use a connection whose end has not come yet."""


class Failure(NamedTuple):
    """One request without an answer."""

    number: int
    began: float
    ended: float
    what: str


class Kill(NamedTuple):
    """A process that was killed, and when."""

    pid: int
    began: float
    ended: float


class LedgerClients:
    """Clients of four kinds in a thread: new connections, kept ones, half-sent and long requests.

    Attributes:
        sent: How many requests there were; their numbers begin with 0.
        answers: The process that answered, by request.
        failures: What there is of the others.
        words: The first words that came, in the order of their first appearance.
    """

    def __init__(self, address: tuple[str, int], clients: int) -> None:
        self.sent = 0
        self.answers: dict[int, int] = {}
        self.failures: list[Failure] = []
        self.words: list[str] = []
        self.clients = clients
        self._address = address
        self._over = False
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def wait_for_more(self, answers: int) -> None:
        """Wait until so many more requests have been answered."""
        wanted = len(self.answers) + answers
        with self._progress:
            assert self._progress.wait_for(lambda: len(self.answers) >= wanted, _PATIENCE)

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask_on(number % 4) for number in range(self.clients)))

    async def _ask_on(self, kind: int) -> None:
        """Ask until it is over; a connection that has ended between two requests is no failure."""
        while not self._over:
            number, began, writer = -1, monotonic(), None
            try:
                async with asyncio.timeout(_PATIENCE):
                    reader, writer = await asyncio.open_connection(*self._address)
                more = True
                while more and not self._over and not reader.at_eof():
                    number, began, self.sent = self.sent, monotonic(), self.sent + 1
                    more = await self._exchange(number, kind, reader, writer)
                    number = -1
                    await asyncio.sleep(_REST)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                if number < 0:  # it could not even connect
                    number, self.sent = self.sent, self.sent + 1
                self.failures.append(Failure(number, began, monotonic(), repr(error)))
                await asyncio.sleep(_REST)
            finally:
                if writer is not None:
                    writer.close()

    async def _exchange(
        self, number: int, kind: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Ask once; return whether the connection can be used again."""
        milliseconds = 150 if kind == 3 else 0
        request = f"GET /{number}?{milliseconds} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        async with asyncio.timeout(_PATIENCE):
            if kind == 2:
                writer.write(request[:12])
                await asyncio.sleep(_REST)
                request = request[12:]
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            word, pid, same = (await reader.readline()).decode().split()
        assert int(same) == number, (same, number)
        self.answers[number] = int(pid)
        with self._progress:
            self._progress.notify()
        if word not in self.words:
            self.words.append(word)
        return kind != 0 and b"Connection: close" not in head

    # -- the balance -------------------------------------------------------------------------------

    def list_errors(self, ledger: Path, kills: list[Kill]) -> list[str]:
        """Return where the books do not agree: each request has one outcome, and a reason."""
        begun, errors = _read_ledgers(ledger)
        failed = {one.number: one for one in self.failures}
        for number in range(self.sent):
            if (number in self.answers) == (number in failed):
                errors.append(f"request {number} has no outcome, or two")
        for number, pid in self.answers.items():
            if begun.get(number) != pid:
                errors.append(f"request {number}: answered by {pid}, begun by {begun.get(number)}")
        for one in self.failures:
            if not any(_explains(kill, one, begun.get(one.number)) for kill in kills):
                errors.append(f"{one} of process {begun.get(one.number)}: nobody was killed then")
        errors += [f"request {one} was never sent" for one in begun if one >= self.sent]
        return errors


def _explains(kill: Kill, failure: Failure, worker: int | None) -> bool:
    """Tell whether *kill* can be why *failure* failed: it was in that worker's hands then."""
    at_that_time = failure.began - _MARGIN <= kill.ended and kill.began <= failure.ended
    return at_that_time and worker in (None, kill.pid)


def _read_ledgers(ledger: Path) -> tuple[dict[int, int], list[str]]:
    """Return which process began each request, and each that was begun twice."""
    begun: dict[int, int] = {}
    errors = []
    for file in ledger.iterdir():
        for line in file.read_text().splitlines():
            what, _, number = line.partition(" ")
            if what != "begun":
                continue
            if int(number) in begun:
                errors.append(f"request {number} was begun twice")
            begun[int(number)] = int(file.name)
    return begun, errors
