"""What the outside does for a program: hears of its reloads, keeps its state, has places for it.

A manager does all of it (systemd: `Type=notify-reload`, the descriptor store, `StateDirectory=`).
Where there is none, nobody keeps a descriptor, and the directories are forkfirst's own.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from contextlib import suppress

from forkfirst import errors
from forkfirst.runtime import waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from forkfirst.runtime.waiting import Wakers

    class Outside(Protocol):
        """Whoever manages the service.

        Attributes:
            kept: Name and descriptor of what it keeps, for a successor.
        """

        kept: list[tuple[str, int]]

        def reloading(self) -> None:
            """Hear that a reload begins."""

        def reloaded(self, status: str = "") -> None:
            """Hear that it is done."""

        def keep(self, fd: int, name: str) -> bool:
            """Keep a copy of *fd* for the next start; return whether it will."""

        def forget(self, name: str) -> bool:
            """Keep nothing of that name any more."""


class NobodyOutside:
    """Nobody manages the service."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, int]] = []

    def reloading(self) -> None:
        """Tell nobody."""

    def reloaded(self, status: str = "") -> None:
        """Tell nobody."""

    def keep(self, fd: int, name: str) -> bool:  # noqa: ARG002 - as everybody's
        """Keep nothing."""
        return False

    def forget(self, name: str) -> bool:  # noqa: ARG002 - as everybody's
        """Have nothing to forget."""
        return False


# -- reloads ---------------------------------------------------------------------------------------


class Reloads:
    """SIGHUP, made into something that the program waits for; the outside hears when it is done.

    A reload begins with the signal and is done when the program waits for the next one, or says
    `Context.ready`. For a program that waits for none it is *succeed*, which returns whether there
    may be a successor; if not, nothing is loaded anew, and that is said.
    """

    def __init__(self, name: str, outside: Outside, succeed: Callable[[], bool]) -> None:
        self._name = name
        self._outside = outside
        self._succeed = succeed
        self._wakers: Wakers = []
        self._wanted = False
        self._under_way = False
        self._listening = False
        self._installed = False

    def install(self) -> None:
        """Take SIGHUP, whose default is to end the process.

        Raises:
            UsageError: This is not the main thread, where only handlers can be set.
        """
        if self._installed:
            return
        if threading.current_thread() is not threading.main_thread():
            message = f'"{self._name}" waits for its first reload in another than the main thread'
            raise errors.UsageError(message, hint="only there can a signal be taken")
        signal.signal(signal.SIGHUP, self._on_signal)
        self._installed = True

    async def wait(self) -> None:
        """Wait until a reload is wanted; the one before is done by that."""
        self._listening = True
        self.install()
        self.done()
        await waiting.wait(lambda: self._wanted, self._wakers)
        self._wanted = False
        self._under_way = True

    def done(self, status: str = "") -> bool:
        """Say that the reload is done, if there is one; return whether there was."""
        if not self._under_way:
            return False
        self._under_way = False
        self._outside.reloaded(status)
        if self._wanted:  # another came meanwhile: that one begins now
            self._outside.reloading()
        return True

    def _on_signal(self, _number: int, _frame: object) -> None:
        if not self._listening:
            # The manager waits for both words; the program goes on as it is.
            self._outside.reloading()
            if self._succeed():
                return
            self._outside.reloaded()
            text = f"forkfirst: {self._name}: SIGHUP, and the program waits for no reload\n"
            with suppress(OSError):
                os.write(2, text.encode())
            return
        if not self._wanted and not self._under_way:
            self._outside.reloading()
        self._wanted = True
        for wake in tuple(self._wakers):
            wake()


# -- state -----------------------------------------------------------------------------------------


def make_state(name: str, data: bytes) -> int:
    """Return the descriptor of a sealed memory file that holds *data*.

    Source: memfd_create(2), F_ADD_SEALS in fcntl(2).
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd


def read_state(fd: int) -> bytes:
    """Return all that the memory file *fd* holds."""
    size = os.fstat(fd).st_size
    chunks = []
    at = 0
    while at < size and (chunk := os.pread(fd, min(size - at, 1 << 20), at)):
        chunks.append(chunk)
        at += len(chunk)
    return b"".join(chunks)


# -- places ----------------------------------------------------------------------------------------


def find_directory(variable: str, default: str) -> str:
    """Return the directory that *variable* names, the first if several, or *default*; make that.

    Raises:
        CannotCreateError: It is not there, and this user cannot make it.
    """
    given = os.environ.get(variable, "").partition(":")[0]
    path = given or default
    try:
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            os.makedirs(parent)
            if os.geteuid() == 0:
                os.chmod(parent, 0o755)  # noqa: S103 - other users' services have theirs there too
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        message = f"cannot make directory {path}: {(error.strerror or str(error)).lower()}"
        kind = variable.partition("_")[0].capitalize()
        hint = f"under systemd, give the unit {kind}Directory="
        raise errors.CannotCreateError(message, hint=hint) from error
    return path
