"""Starts a driver of the runtimes as a real process, hears what it tells, and ends it for sure."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(__file__).parent.parent / "programs"
SECONDS = 40.0


class Flavour(NamedTuple):
    """A runtime module, and the library that the program is written in."""

    runtime: str
    library: str

    def __str__(self) -> str:
        """Name the test."""
        return f"{self.library} on {self.runtime.rstrip('_')}"


FLAVOURS = (
    Flavour("asyncio_", "asyncio"),
    Flavour("uvloop_", "asyncio"),
    Flavour("trio_", "trio"),
    Flavour("asyncio_", "anyio"),
    Flavour("uvloop_", "anyio"),
    Flavour("trio_", "anyio"),
)


class Ended(NamedTuple):
    """All that is known of a driver that has ended."""

    status: int
    told: list[dict[str, Any]]
    out: str
    err: str

    @property
    def words(self) -> list[str]:
        """What it told, without the details."""
        return [one["what"] for one in self.told]

    def fact(self, what: str) -> dict[str, Any]:
        """Return the details of the first *what*."""
        return next(one for one in self.told if one["what"] == what)


class Child:
    """A running driver."""

    def __init__(self, process: subprocess.Popen[str], report: int) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []
        self._report = report
        self._rest = b""
        self._deadline = time.monotonic() + SECONDS

    @property
    def pid(self) -> int:
        """The driver's own."""
        return self.process.pid

    def wait_for(self, what: str) -> dict[str, Any]:
        """Wait until it tells *what*, and return the details."""
        while True:
            for one in self.told:
                if one["what"] == what:
                    return one
            if not self._read():
                message = f"it ended without {what!r}; it told {self.told}\n{self.finish().err}"
                raise AssertionError(message)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def finish(self) -> Ended:
        """Wait for its end."""
        while self._read():
            pass
        out, err = self.process.communicate(timeout=SECONDS)
        return Ended(self.process.returncode, self.told, out, err)

    def _read(self) -> bool:
        poll = select.poll()
        poll.register(self._report, select.POLLIN)
        if not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            message = f"it is silent; it told {self.told}"
            raise AssertionError(message)
        octets = os.read(self._report, 65536)
        *lines, self._rest = (self._rest + octets).split(b"\n")
        self.told += [json.loads(line) for line in lines]
        return bool(octets)


@contextmanager
def start_driver(
    driver: str, *arguments: str, fds: tuple[int, ...] = (), **environment: str
) -> Iterator[Child]:
    """Run the program *driver*; "REPORT" among *arguments* becomes the descriptor it tells to."""
    receiver, sender = os.pipe()
    high = fcntl.fcntl(sender, fcntl.F_DUPFD, 100)
    os.close(sender)
    words = [str(high) if one == "REPORT" else one for one in arguments]
    process = subprocess.Popen(
        # Not -X dev: asyncio's debug mode complains of slow callbacks, which a busy machine has.
        [sys.executable, "-W", "default", str(PROGRAMS / driver), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a service has; it dies with us all the same, by the driver
        pass_fds=(high, *fds),
        env={**os.environ, **environment},
    )
    os.close(high)
    try:
        yield Child(process, receiver)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        os.close(receiver)


@contextmanager
def start_program(
    flavour: Flavour,
    program: str,
    *listeners: tuple[str, int],
    grace: float = 30.0,
    **environment: str,
) -> Iterator[Child]:
    """Run *program*, a name in lifecycle.py or FILE:NAME, on *flavour*."""
    place = program if ":" in program else f"{PROGRAMS / 'lifecycle.py'}:{program}"
    with start_driver(
        "runtime_driver.py",
        flavour.runtime,
        place,
        str(grace),
        "REPORT",
        *(f"{name}={fd}" for name, fd in listeners),
        fds=tuple(fd for _, fd in listeners),
        LIBRARY=flavour.library,
        **environment,
    ) as child:
        yield child
