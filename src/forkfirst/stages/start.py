"""What a start has made so far: the state that the steps fill in, and how to undo it."""

from __future__ import annotations

import os
import time

from forkfirst import errors
from forkfirst.stages.taking import NO_DESCRIPTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.control.server import Server
    from forkfirst.plan.plan import Plan
    from forkfirst.stages.answers import Facts
    from forkfirst.stages.fork_first import Forked
    from forkfirst.stages.managed.telling import Manager
    from forkfirst.stages.succession.predecessor import Predecessor
    from forkfirst.unix.held_pidfile import PidFile


class Start:
    """One start under way.

    Attributes:
        plan: What is to be done.
        command: The command line that would start this service again.
        directory: Where that command was given.
        program: The person's function, where the service was declared in their own program;
            None where it is found by its target, after the fork.
        forked: The process that waits to be the service; None where none was forked.
        pid_file: The lock, once taken.
        log: The descriptor of the log, or `NO_DESCRIPTOR`.
        log_offset: Bytes in the log before this start.
        listeners: Name and descriptor of each listener, in the order of the declaration.
        spread: The other sockets of each listener that has one for each worker, by the first.
        control: The descriptor of the control socket, or `NO_DESCRIPTOR`.
        control_name: Its name in the kernel after an "@", where it has no path.
        paths: Sockets that this start made: path, inode and device. They go when the service does.
        report_to: Where the service reports, or `NO_DESCRIPTOR`.
        lifeline: The end that a child of a supervisor lives by, or `NO_DESCRIPTOR`.
        child: What a fork returned, in the first process of a container.
        pid: The service, once the launcher knows it; 0 before.
        pidfd: A handle of that process, if there are such and it was still there.
        is_held: Whether it was there, and is known to be the service.
        status: What the program said of itself when it became ready.
        began: When the start began, in seconds of `time.monotonic`.
        facts: What the service knows of itself, in the service.
        server: Who answers for it, in the service.
        manager: Who manages the service and is told so; None where nobody is.
        held_outside: Whether its listeners were passed to it, and so stay open without it.
        adopted: The descriptors of the listeners that were passed: somebody else's to keep.
        stored: Name and descriptor of what was passed and is no listener.
        connection: The one connection that this process was started for, or `NO_DESCRIPTOR`.
        replaced: A record that goes back to where it was when the service ends: its path, and what
            stood there before; or None.
        own_status: What the kernel says of the service, opened before its root changed; or None.
        environment: The environment that it was started with, without what is declared for the
            program: a successor's own declaration is assigned to that.
        module_path: Where modules were looked for before the program was, for a successor.
        predecessor: Who makes a successor of this process when a reload is asked for; None before.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        command: tuple[str, ...] = (),
        directory: str = "/",
        program: Callable[..., object] | None = None,
        forked: Forked | None = None,
    ) -> None:
        self.plan = plan
        self.command = command
        self.directory = directory
        self.program = program
        self.forked = forked
        self.pid_file: PidFile | None = None
        self.log = self.control = NO_DESCRIPTOR
        self.log_offset = 0
        self.listeners: list[tuple[str, int]] = []
        self.spread: dict[int, list[int]] = {}
        self.control_name = ""
        self.paths: list[tuple[str, int, int]] = []
        self.report_to = NO_DESCRIPTOR
        self.child = self.lifeline = self.connection = NO_DESCRIPTOR
        self.pid = 0
        self.pidfd: int | None = None
        self.is_held = False
        self.status = ""
        self.began = forked.began if forked is not None else time.monotonic()
        self.facts: Facts | None = None
        self.server: Server | None = None
        self.manager: Manager | None = None
        self.held_outside = False
        self.adopted: set[int] = set()
        self.stored: list[tuple[str, int]] = []
        self.own_status: int | None = None
        self.environment: dict[str, str] = {}
        self.module_path: list[str] = []
        self.predecessor: Predecessor | None = None
        self._undo: list[Callable[[], object]] = []
        self.replaced: tuple[str, bytes | None] | None = None

    def on_failure(self, undo: Callable[[], object]) -> None:
        """Call *undo* if the start fails; the last one registered is called first."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Undo every step, the last one first. One that cannot be undone does not stop the rest."""
        while self._undo:
            _try(self._undo.pop())
        self.tidy()

    def tidy(self) -> None:
        """Remove what must not outlive the service; the lock goes last.

        A path is removed while its socket is still open: the inode cannot be anybody else's then.
        """
        if self.replaced is not None:
            from forkfirst.stages import record  # noqa: PLC0415 - it has been loaded to replace it

            path, before = self.replaced
            _try(lambda: record.put_back(path, before))
        kept = self.manager.kept_paths if self.manager is not None else ()
        for path, inode, device in self.paths:
            if path not in kept:  # else whoever comes before the next start still finds its socket
                _try(lambda: unlink_if_same(path, inode, device))  # noqa: B023 - called at once
        if self.pid_file is not None:
            _try(self.pid_file.release)

    def note_end(self, status: int) -> None:
        """Leave word, where a person looks for it, that a daemon ends by itself with *status*.

        One that may not write there any more, having become another user, leaves none; nor does one
        that a successor has replaced, or whose end somebody waits for.
        """
        if self.plan.mode != "daemon" or self.pid_file is None:
            return
        try:
            from forkfirst.stages import record  # noqa: PLC0415 - few services end so

            record.note_end(self.plan.places.record, status)
        except (OSError, ImportError, errors.ForkfirstError):
            return  # what it holds must still be given up

    def give_away(self) -> None:
        """Leave lock and paths to the successor, which has them too: nothing of it is tidied."""
        self.replaced = None
        self.paths.clear()
        if self.pid_file is not None:
            self.pid_file.close()
            self.pid_file = None

    def made_path(self, path: str) -> None:
        """Note that this start has just bound a socket to *path*."""
        facts = os.lstat(path)
        self.paths.append((path, facts.st_ino, facts.st_dev))

    def descriptors(self) -> list[int]:
        """Return the descriptors that belong to the service: lock, log, control, sockets."""
        lock = self.pid_file.fd if self.pid_file is not None else NO_DESCRIPTOR
        spread = [fd for others in self.spread.values() for fd in others]
        return [lock, self.log, self.control, *(fd for _, fd in self.listeners), *spread]

    def list_kept(self) -> list[str]:
        """Return the names of the listeners that the manager keeps while nobody is there."""
        return [] if self.manager is None else self.manager.kept_listeners

    def let_go(self) -> None:
        """Close the launcher's copies of what the service now has alone."""
        for fd in self.descriptors():
            if fd != NO_DESCRIPTOR:
                os.close(fd)


def _try(tidy: Callable[[], object]) -> None:
    try:
        tidy()
    except OSError:
        return  # a directory that is gone, say: the rest must still be tidied


def unlink_if_present(path: str) -> None:
    """Remove *path*; that it is gone already is what was wanted."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def unlink_if_same(path: str, inode: int, device: int) -> None:
    """Remove *path* if it is still the file with that inode: a successor's is never removed."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return
    if (facts.st_ino, facts.st_dev) == (inode, device):
        unlink_if_present(path)
