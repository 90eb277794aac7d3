"""Starts a command anew whenever its files change, and holds its sockets all the while.

The order is what keeps every connection: the new process is started beside the old one, on the same
sockets; when it is good, the old one is asked to stop, and it has its grace period to finish what
it has accepted. What nobody has accepted yet waits in the socket's queue, which is ours. A process
that is not good is stopped, and the one before it serves on.

The process that watches has threads (watchfiles), so it starts others by spawn, and never forks. If
it is killed by SIGKILL, the command lives on: the kernel tells nobody.
"""

from __future__ import annotations

import os
import select
import signal
import time

from forkfirst import errors
from forkfirst.stages.hold import own_output, terminal
from forkfirst.stages.hold.generation import NEVER, Generation
from forkfirst.unix import spawn
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from forkfirst.stages.hold.changes import Changes
    from forkfirst.stages.hold.generation import Recipe

    class Say(Protocol):
        """Tells the person."""

        def __call__(self, text: str, *, important: bool = False) -> None:
            """Say *text*."""


_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
_LOOK_AGAIN_SECONDS = 0.05
"""How often to look whether what a process left behind has ended: it is no child of ours."""

_SAME_STOP_SECONDS = 0.3
"""Two wishes to stop within this time are one: a person needs longer to press Ctrl-C again."""

_SHOWN_PATHS = 3


class Patience(Value):
    """How long what may take.

    Attributes:
        settle: A command that says nothing is good when it has lived so many seconds; None: only
            its own word counts.
        ready: A command that says when it is ready has so many seconds to do so.
        grace: And so many to stop.
    """

    settle: float | None = 1.0
    ready: float = 60.0
    grace: float = 10.0


class Watch:
    """The loop: one thread, one poll, at most one process that serves and one that shall."""

    def __init__(
        self, recipe: Recipe, changes: Changes, patience: Patience, say: Say, directory: str
    ) -> None:
        self._recipe = recipe
        self._changes = changes
        self._patience = patience
        self._say = say
        self._directory = directory
        self._serving: Generation | None = None
        self._coming: Generation | None = None
        self._leaving: list[Generation] = []
        self._speaks = False  # the command has said READY=1 once, so it is expected to
        self._stops = 0
        self._stopped_at = 0.0
        self._status = 0
        self._signals: list[int] = []
        # What this process was started with, as by nohup(1), the command has too.
        self._still_ignored: frozenset[int] = frozenset()

    def run(self) -> int:
        """Serve until a signal ends it; return the exit status of the process that served last.

        SIGINT and SIGQUIT go to the command's process group, as from a terminal; SIGTERM and SIGHUP
        end it by SIGTERM. A second one kills. SIGUSR1, SIGUSR2 and SIGWINCH are handed on.

        Call it in the main thread of a process without other children.

        Raises:
            ForkfirstError: The command cannot be executed at all, the first time.
        """
        receive, send = os.pipe()
        for fd in (receive, send):
            os.set_blocking(fd, False)
        self._still_ignored = frozenset(spawn.list_inherited_ignored())
        terminal.prepare()
        for number in (*_STOPPING, *_FORWARDED, signal.SIGCHLD):
            if number not in self._still_ignored:
                signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(send, warn_on_full_buffer=False)
        try:
            self._coming = Generation(self._recipe, self._still_ignored, time.monotonic())
            while not self._stops or self._everybody():
                self._wait(receive)
                self._step(time.monotonic())
        finally:
            signal.set_wakeup_fd(-1)
            for generation in self._everybody():  # something raised
                generation.kill()
            os.close(receive)
            os.close(send)
        return self._status

    def _everybody(self) -> list[Generation]:
        two = (self._serving, self._coming)
        return [*(one for one in two if one is not None), *self._leaving]

    # -- one turn ------------------------------------------------------------------------------

    def _wait(self, wakeup: int) -> None:
        poll = select.poll()
        listened_to = [one.listened_to for one in self._everybody()]
        for fd in (wakeup, self._changes.fileno(), *listened_to):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        due = self._find_due()
        left = None if due == NEVER else max(0.0, due - time.monotonic()) * 1000 + 1
        if any(one.status is not None for one in self._everybody()):
            left = min(_LOOK_AGAIN_SECONDS * 1000, NEVER if left is None else left)
        poll.poll(left)
        try:
            self._signals += os.read(wakeup, 4096)
        except BlockingIOError:
            return

    def _find_due(self) -> float:
        due = [one.kill_at for one in self._everybody()]
        if self._coming is not None:
            due += [self._settles_at(self._coming), self._coming.began + self._patience.ready]
        return min(due, default=NEVER)

    def _step(self, now: float) -> None:
        for number in self._signals:
            self._on_signal(number, now)
        self._signals.clear()
        for generation in self._everybody():
            generation.look()
            # All of them: what nobody reads would keep the poll awake. Also of one that has ended.
            self._speaks = generation.hear_ready() or self._speaks
            if generation.stopped_for_terminal():
                terminal.lend(generation.pid)
            if now >= generation.kill_at:
                generation.kill()
                grace = self._patience.grace
                self._say(f"killed pid {generation.pid}: not stopped after {grace:g} s")
        self._judge(now)
        self._bury(now)
        if not self._stops:
            changed = [path for path in self._changes.take() if not self._is_own(path)]
            if changed:
                self._start_anew(changed, now)

    # -- good or not ---------------------------------------------------------------------------

    def _settles_at(self, generation: Generation) -> float:
        settle = self._patience.settle
        return NEVER if settle is None or self._speaks else generation.began + settle

    def _judge(self, now: float) -> None:
        """Decide about the process that is coming."""
        coming = self._coming
        if coming is None:
            return
        if coming.status is not None:
            return
        if coming.is_ready or now >= self._settles_at(coming):
            self._promote(coming, now)
        elif now >= coming.began + self._patience.ready:
            self._coming = None
            self._retire(coming, now)
            seconds = self._patience.ready
            self._say_lost(f"the new process is not ready after {seconds:g} s")

    def _promote(self, coming: Generation, now: float) -> None:
        old, self._serving, self._coming = self._serving, coming, None
        if old is not None:
            self._say(f"pid {coming.pid} serves, pid {old.pid} stops")
            self._retire(old, now)

    def _bury(self, now: float) -> None:
        """Take away what has ended, and say so where nobody asked for it."""
        for generation in self._everybody():
            if generation.status is None:
                continue
            if terminal.take_back(generation.pid) and generation.status == 128 + signal.SIGINT:
                self._on_signal(signal.SIGINT, now)  # Ctrl-C went to it alone
            if generation.kill_at == NEVER and generation not in self._leaving:
                generation.kill_at = now + self._patience.grace  # for what it left behind
            if generation.reap():
                self._forget(generation)

    def _forget(self, gone: Generation) -> None:
        assert gone.status is not None  # noqa: S101 - only the ended are forgotten
        if gone in self._leaving:
            self._leaving.remove(gone)
            return
        if gone is self._serving:
            self._serving = None
            self._status = gone.status
            if not self._stops:
                then = "" if self._coming is not None else ": waiting for a change"
                self._say(f"pid {gone.pid} {gone.description}{then}", important=True)
            return
        self._coming = None
        if self._serving is None:
            self._status = gone.status
        if not self._stops:
            self._say_lost(f"the new process {gone.description} before it was ready")

    def _say_lost(self, what: str) -> None:
        serving = self._serving
        then = "waiting for a change"
        if serving is not None and serving.status is None:
            then = f"pid {serving.pid} serves on"
        self._say(f"{what}: {then}", important=True)

    # -- the new and the old -------------------------------------------------------------------

    def _start_anew(self, changed: list[str], now: float) -> None:
        self._say(f"{self._describe_changes(changed)} changed: starting anew")
        coming, self._coming = self._coming, None
        if coming is not None and coming.status is not None:
            self._leaving.append(coming)
        elif coming is not None and self._serving is None:
            self._serving = coming  # not proven, but it may answer, and nobody else does
        elif coming is not None:
            self._retire(coming, now)
        try:
            self._coming = Generation(self._recipe, self._still_ignored, now)
        except errors.ForkfirstError as error:
            self._say_lost(str(error))

    def _is_own(self, path: str) -> bool:
        """Return whether the command itself has just written to *path*."""
        pids = [pid for one in self._everybody() for pid in one.list_pids()]
        return own_output.is_written_by(path, pids)

    def _retire(self, old: Generation, now: float) -> None:
        self._leaving.append(old)
        old.ask_to_stop(signal.SIGTERM, now + self._patience.grace)

    def _describe_changes(self, changed: list[str]) -> str:
        names = [
            os.path.relpath(path, self._directory)
            if path.startswith(f"{self._directory}/")
            else path
            for path in changed[:_SHOWN_PATHS]
        ]
        more = len(changed) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")

    # -- signals -------------------------------------------------------------------------------

    def _on_signal(self, number: int, now: float) -> None:
        if number in _FORWARDED and self._serving is not None:
            self._serving.forward(number)
        if number not in _STOPPING:
            return
        if self._stops and now < self._stopped_at + _SAME_STOP_SECONDS:
            return  # timeout(1) and others signal the process, and its group as well
        self._stops += 1
        self._stopped_at = now
        if self._stops > 1:
            for generation in self._everybody():
                generation.kill()
            return
        sent = signal.SIGTERM if number == signal.SIGHUP else number
        for generation in self._everybody():
            if generation not in self._leaving:
                generation.ask_to_stop(sent, now + self._patience.grace)
