"""What a start has made so far: the state that the steps fill in, and how to undo it."""

from __future__ import annotations

import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.control.server import Server
    from forkfirst.plan.order import Plan
    from forkfirst.stages.answers import Facts
    from forkfirst.unix.channel import Reader
    from forkfirst.unix.pidfile import PidFile

NO_DESCRIPTOR = -1

ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""What asks a launcher to give up."""


class Start:
    """One start under way.

    Attributes:
        plan: What is to be done.
        command: The command line that would start this service again.
        directory: Where that command was given.
        program: The person's function, where the service was declared in their own program;
            None where it is found by its target, after the fork.
        pid_file: The lock, once taken.
        log: The descriptor of the log, or `NO_DESCRIPTOR`.
        log_offset: Bytes in the log before this start.
        listeners: Name and descriptor of each listener, in the order of the declaration.
        control: The descriptor of the control socket, or `NO_DESCRIPTOR`.
        report: The launcher's end of the report.
        report_to: The service's end of the report, or `NO_DESCRIPTOR`.
        child: What the last fork returned: 0 in the child.
        pid: The service, once the launcher knows it; 0 before.
        pidfd: A handle of that process, taken while it could not have been reaped; or None.
        status: What the program said of itself when it became ready.
        began: When the start began, in seconds of `time.monotonic`.
        leave_behind: What to do when the service has ended.
        facts: What the service knows of itself, in the service.
        server: Who answers for it, in the service.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        command: tuple[str, ...],
        directory: str,
        program: Callable[..., object] | None = None,
    ) -> None:
        self.plan = plan
        self.command = command
        self.directory = directory
        self.program = program
        self.pid_file: PidFile | None = None
        self.log = NO_DESCRIPTOR
        self.log_offset = 0
        self.listeners: list[tuple[str, int]] = []
        self.control = NO_DESCRIPTOR
        self.report: Reader | None = None
        self.report_to = NO_DESCRIPTOR
        self.child = NO_DESCRIPTOR
        self.pid = 0
        self.pidfd: int | None = None
        self.status = ""
        self.began = time.monotonic()
        self.leave_behind: list[Callable[[], object]] = []
        self.facts: Facts | None = None
        self.server: Server | None = None
        self._undo: list[Callable[[], object]] = []

    def on_failure(self, undo: Callable[[], object]) -> None:
        """Call *undo* if the start fails; the last one registered is called first."""
        self._undo.append(undo)

    def on_end(self, tidy: Callable[[], object]) -> None:
        """Call *tidy* if the start fails, and when the service has ended."""
        self._undo.append(tidy)
        self.leave_behind.append(tidy)

    def undo(self) -> None:
        """Undo every step, the last one first. One that cannot be undone does not stop the rest."""
        _call_all(self._undo)

    def tidy(self) -> None:
        """Remove what must not outlive the service: called by the service as its last act."""
        _call_all(self.leave_behind)

    def hand_over(self) -> None:
        """Close the launcher's copies of what the service now has alone."""
        if self.pid_file is not None:
            self.pid_file.close()
        for fd in (self.log, self.control, *(fd for _, fd in self.listeners)):
            if fd != NO_DESCRIPTOR:
                os.close(fd)

    def kept_descriptors(self) -> tuple[int, ...]:
        """Return the descriptors above 2 that belong to the service."""
        lock = self.pid_file.fd if self.pid_file else NO_DESCRIPTOR
        own = (lock, self.control, self.report_to, *(fd for _, fd in self.listeners))
        return tuple(fd for fd in own if fd != NO_DESCRIPTOR)


def _call_all(functions: list[Callable[[], object]]) -> None:
    while functions:
        try:
            functions.pop()()
        except OSError:  # noqa: PERF203 - each on its own: a full disk must not keep the socket
            continue


def unlink_if_present(path: str) -> None:
    """Remove *path*; that it is gone already is what was wanted."""
    try:
        os.unlink(path)  # noqa: PTH108 - pathlib costs 6 ms before the fork
    except FileNotFoundError:
        return
