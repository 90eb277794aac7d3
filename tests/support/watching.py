"""A watched command, edited by a test and heard line by line."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from support.service_home import PATIENCE, PROGRAMS, holding, wait_gone

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from support.service_home import Home

SOURCE = (PROGRAMS / "watched.py").read_text(encoding="utf-8")
SERVICE = (PROGRAMS / "watched_service.py").read_text(encoding="utf-8")


class Watching:
    """`forkfirst listen --watch`, or another command that watches, while it runs.

    Attributes:
        process: It.
        port: Where it listens.
        heard: All that it and its command have said so far.
    """

    def __init__(self, home: Home, process: subprocess.Popen[bytes]) -> None:
        self.home = home
        self.process = process
        self.heard = ""
        self.port = 0
        self._read = 0

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until *pattern* is said, after what was waited for before."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        poll.register(self.process.stderr, select.POLLIN)
        while not (found := re.search(pattern, self.heard[self._read :])):
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            assert ready, f"never said {pattern!r}: {self.heard}"
            octets = os.read(self.process.stderr.fileno(), 65536)
            assert octets, f"ended before it said {pattern!r}: {self.heard}"
            self.heard += octets.decode()
        self._read += found.end()
        return found

    def edit(self, version: str, name: str = "app.py", *, source: str = SOURCE) -> None:
        """Save the program with another version, as an editor does: a new file, renamed."""
        write_version(self.home, version, name, source=source)

    def wait_for_change_of_guard(self) -> int:
        """Wait until a new process serves and the old one is gone; return the old one's pid."""
        old = int(self.wait_for(r"pid \d+ serves, pid (\d+) stops")[1])
        with holding(old) as pidfd:
            if pidfd is not None:
                wait_gone(pidfd)
        return old

    def ask(self) -> tuple[str, int]:
        """Connect, and return the version and the pid that answer."""
        return ask(self.port)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit status."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        """Hear the rest, and return the exit status."""
        _, rest = self.process.communicate(timeout=PATIENCE)
        self.heard += rest.decode()
        return self.process.returncode


def write_version(home: Home, version: str, name: str, *, source: str = SOURCE) -> Path:
    """Write the program with *version* into the home; return where."""
    fresh = home.program(f".{name}.swp", source.replace('"one"', repr(version), 1))
    return fresh.rename(home.directory / name)


@contextmanager
def watching(
    home: Home, *words: object, command: tuple[object, ...] = (), **environment: str
) -> Iterator[Watching]:
    """Watch the home's directory, and give it when the first process serves."""
    if not (home.directory / "app.py").exists():
        write_version(home, "one", "app.py")
    command = command or (sys.executable, "-I", "-S", "app.py")
    whole = home.words("listen", "-s", "0", *words, "--", *command)
    with open_watching(home, *whole, **environment) as found:
        found.port = int(found.wait_for(r"127\.0\.0\.1:(\d+) is descriptor 3")[1])
        found.wait_for("watching")
        yield found


@contextmanager
def open_watching(home: Home, *whole: str, **environment: str) -> Iterator[Watching]:
    """Start a command that watches; at the end it is killed, if it still runs."""
    with home.open(*whole, stdout=2, stderr=-1, env={**home.environment, **environment}) as process:
        try:
            yield Watching(home, process)
        finally:
            process.kill()


def connect(port: int) -> socket.socket:
    """Return a connection whose every wait is bounded."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def ask(port: int) -> tuple[str, int]:
    """Connect, ask, and return the version and the pid that answer."""
    with connect(port) as connection, connection.makefile("rw") as lines:
        lines.write("?\n")
        lines.flush()
        version, pid = lines.readline().split()
        return version, int(pid)


class Load:
    """Clients that ask all the time, one connection for each question.

    Attributes:
        answers: Who answered, in order: version and pid.
        failures: What went wrong.
    """

    def __init__(self, port: int, clients: int) -> None:
        self.answers: list[tuple[str, int]] = []
        self.failures: list[Exception] = []
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(ask(self._port))
            except Exception as error:  # noqa: BLE001 - each is a lost connection
                self.failures.append(error)

    def wait_for_answers(self, count: int) -> None:
        """Wait until so many more were given."""
        wanted = len(self.answers) + count
        deadline = time.monotonic() + PATIENCE
        while len(self.answers) < wanted and not self.failures:
            assert time.monotonic() < deadline, self.answers[-10:]
            self._over.wait(0.001)

    def wait_for_failure(self) -> None:
        """Wait until a connection is lost."""
        deadline = time.monotonic() + PATIENCE
        while not self.failures:
            assert time.monotonic() < deadline, "no connection is lost"
            self._over.wait(0.001)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
