"""A place of its own for the services of one test, and the certainty that they are gone after it.

Every process that a test starts has the test's own FORKFIRST_STATE_DIR in the environment that it
was executed with, however often it forked, and whatever session, group or user it changed to. So
`list_processes` finds them all, those of a launcher that was killed as well.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 40.0
"""Seconds after which a test gives up; nothing is ever expected to take so long."""

PROGRAMS = Path(__file__).parent.parent / "programs"
NOBODY = 65534

# Variables that would change what is tested: buffering, and what a manager said to the tests.
_NOT_PASSED = re.compile(r"PYTHON(UNBUFFERED|DONTWRITEBYTECODE)|LISTEN_|NOTIFY_SOCKET|WATCHDOG_")
# It may read what root may, so that it finds the interpreter wherever that is; it may write nothing
# that is not its own, and signal nobody else.
_AS_OTHER = (
    *("setpriv", "--clear-groups", "--bounding-set=-all,+dac_read_search"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)


class Done(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


class Home:
    """Directories of one test.

    Attributes:
        directory: Where commands are given and programs are.
        state: The private FORKFIRST_STATE_DIR.
        environment: What every command is executed with.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.environment = {k: v for k, v in os.environ.items() if not _NOT_PASSED.match(k)}
        self.environment["FORKFIRST_STATE_DIR"] = str(self.state)
        self._mark = f"FORKFIRST_STATE_DIR={self.state}".encode()

    # -- commands ------------------------------------------------------------------------------

    def words(self, *words: object) -> list[str]:
        """Return the command line of `forkfirst` with *words*."""
        return [sys.executable, "-m", "forkfirst", *map(str, words)]

    def run(self, *words: object, **options: Any) -> Done:
        """Run any command to its end, which is also that of its output: no daemon may keep that."""
        process = self.open(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Done(process.returncode, out.decode(), err.decode())

    def open(
        self, *words: object, uid: int | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start any command and do not wait for it; as the user *uid*, if that is given."""
        options = {"cwd": self.directory, "env": self.environment, **options}
        options.setdefault("stdin", subprocess.DEVNULL)
        become = () if uid is None else (*_AS_OTHER, f"--reuid={uid}", f"--regid={uid}")
        command = [*become, *map(str, words)]
        return subprocess.Popen(command, **options)

    def forkfirst(self, *words: object, **options: Any) -> Done:
        """Run `forkfirst` with *words* to its end."""
        return self.run(*self.words(*words), **options)

    def start(self, *words: object, **options: Any) -> Done:
        """Run `forkfirst start`, which must succeed."""
        done = self.forkfirst("start", *words, **options)
        assert done.status == 0, done
        assert done.err == "", done
        return done

    def stop(self, name: str, **options: Any) -> Done:
        """Run `forkfirst stop`, which must succeed."""
        done = self.forkfirst("stop", name, **options)
        assert (done.status, done.err) == (0, ""), done
        return done

    # -- what is there -------------------------------------------------------------------------

    def program(self, name: str, text: str) -> Path:
        """Write a program's file and return its path."""
        path = self.directory / name
        path.write_text(text)
        return path

    def status(self, name: str) -> dict[str, Any]:
        """Return what `status --json` says."""
        done = self.forkfirst("status", name, "--json")
        assert done.err == "", done
        found: dict[str, Any] = json.loads(done.out)
        return found

    def pid(self, name: str) -> int:
        """Return what the pid file says."""
        return int((self.state / "run" / f"{name}.pid").read_text())

    def log(self, name: str) -> str:
        """Return the service's whole log."""
        return (self.state / f"{name}.log").read_text()

    def address(self, name: str, listener: str = "web") -> tuple[str, int] | str:
        """Return where a running service listens, as connect(2) wants it."""
        text = dict(self.status(name)["listeners"])[listener]
        host, _, port = text.rpartition(":")
        return text.removeprefix("unix:") if "/" in text else (host.strip("[]"), int(port))

    def list_files(self) -> list[str]:
        """Return every file below the state directory that is not a directory."""
        found = self.state.rglob("*")
        return sorted(str(one.relative_to(self.state)) for one in found if not one.is_dir())

    def list_processes(self) -> dict[int, str]:
        """Return every process that runs and was started for this test, with its command line."""
        return {pid: _read_command(pid) for pid in _list_pids() if self._is_ours(pid)}

    def _is_ours(self, pid: int) -> bool:
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False  # gone, or a thread of the kernel

    # -- the end -------------------------------------------------------------------------------

    def wait_alone(self) -> None:
        """Wait until none of the processes that are there now is, and no other has come."""
        deadline = time.monotonic() + PATIENCE
        while found := self.list_processes():
            for pid in found:
                with holding(pid) as pidfd:
                    if pidfd is not None and self._is_ours(pid):
                        wait_gone(pidfd, deadline)

    def end_all(self) -> None:
        """Kill every process that was started for this test, and wait until they are gone."""
        deadline = time.monotonic() + PATIENCE
        while found := self.list_processes():
            for pid in found:
                with holding(pid) as pidfd:
                    if pidfd is not None and self._is_ours(pid):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        wait_gone(pidfd, deadline)


@contextmanager
def making_home() -> Iterator[Home]:
    """Give a home in a directory with a short name, and end all that was started there."""
    # Not pytest's own: its names are longer than a socket's address may be.
    directory = Path(tempfile.mkdtemp(prefix="ff-"))
    home = Home(directory)
    try:
        yield home
    finally:
        home.end_all()
        shutil.rmtree(directory)


class Told:
    """A fifo on which a program says where it is: the barrier between it and its test."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # For writing as well: else the end of the first writer would be the end of file.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def wait(self) -> str:
        """Wait for the next line that was told."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._rest:
            assert poll.poll(max(0.0, deadline - time.monotonic()) * 1000), "nothing was told"
            self._rest += os.read(self._fd, 4096)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Hear no more."""
        os.close(self._fd)


@contextmanager
def holding(pid: int) -> Iterator[int | None]:
    """Give a pidfd of the process *pid*, or None if there is none."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def wait_gone(pidfd: int, deadline: float | None = None) -> None:
    """Wait until the process behind *pidfd* has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    left = PATIENCE if deadline is None else deadline - time.monotonic()
    assert poll.poll(max(0.0, left) * 1000), "the process does not end"


def talk(address: tuple[str, int] | str, text: bytes = b"hello\n") -> bytes:
    """Connect to *address*, send *text*, and return all that comes back."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    if not isinstance(address, str) and ":" in address[0]:
        family = socket.AF_INET6
    with socket.socket(family) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        chunks = []
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def _list_pids() -> list[int]:
    return [int(one) for one in os.listdir("/proc") if one.isdecimal()]  # noqa: PTH208 - names are wanted


def _read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "(gone)"
