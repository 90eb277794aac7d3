"""SIGTERM and SIGINT, made into a stop that is bounded in time whatever the program does.

First signal: the program is told. If it waits for that (`Context.wait_stopping`) it may end by
itself until the grace period has passed, otherwise it is cancelled at once. When the grace period
has passed: a line in the log, a cancellation, and one second to clean up. Second signal: the same,
now. After that second the process ends with status 1, its tasks and stacks in the log.

The handler is Python's own kind and runs between two bytecodes of the main thread, so it works
while a callback loops for ever. From then on a thread keeps the time. Behind it stands, one second
later, a thread of the fault handler, which needs no GIL: no C code that holds the GIL can outlast
it. (Not it alone: without the GIL it reads frames that move, and has been seen to crash on that.)
What is left is C code that does not return to Python at the moment of the *first* signal, and in a
plain function also a blocking call that begins in the very microseconds in which that comes: a loop
is woken by its wake-up descriptor, a bare `time.sleep` is not. Only SIGKILL ends these.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from _thread import allocate_lock, start_new_thread
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import TypeAlias

    from forkfirst.runtime.context import Context

    Schedule: TypeAlias = Callable[[Callable[[], object]], object]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
CLEAN_UP_SECONDS = 1.0
"""How long a cancelled program may clean up when the grace period has passed."""
_LAST_RESORT_SECONDS = 1.0  # how much later than our own thread the fault handler's is
_HARD_END = 1
_STDERR = 2


class Stopped(SystemExit):
    """Raised in a plain function that is to stop; like every SystemExit, not an Exception."""

    code: int

    def __init__(self) -> None:
        super().__init__(0)


class Stopping:
    """The stop of one program, from its first signal to its end.

    Attributes:
        is_handled: Whether the program has a handler of its own for a signal, and so will end by
            itself.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.is_handled: Callable[[int], bool] = lambda _: False
        self._cancel: Callable[[], object] | None = None
        self._schedule: Schedule | None = None
        self._needs_main_thread = False
        self._cancel_wanted = False
        self._nudged = False
        self._begun = False
        self._hurried = False
        self._ends_at = float("inf")
        self._ended = False
        self._running = _make_held_lock()
        self._watches: list[LockType] = []

    def install(self) -> None:
        """Take SIGTERM and SIGINT. They stay taken after the end: what follows is not cut short."""
        for number in STOP_SIGNALS:
            signal.signal(number, self.on_signal)

    def attach(
        self, cancel: Callable[[], object], schedule: Schedule, *, needs_main_thread: bool = False
    ) -> None:
        """Say how the program is cancelled; it is done at once if that is already wanted.

        *cancel* is called at most once, by whatever *schedule* hands it to. *schedule* is called in
        any thread and in signal handlers; with *needs_main_thread* only in the main thread, and
        then what it calls may raise.
        """
        self._cancel = cancel
        self._schedule = schedule
        self._needs_main_thread = needs_main_thread
        if self._cancel_wanted:
            schedule(self._cancel_unless_waiting)

    def detach(self) -> None:
        """Say that the program has ended: nothing is left to be cancelled.

        The hard bound stays where a stop has begun: exit handlers and other threads of the program
        are bounded by it as well.
        """
        self._cancel = self._schedule = None
        if not self._ended:
            self._ended = True
            self._running.release()
        while self._watches:
            self._watches.pop().acquire(timeout=CLEAN_UP_SECONDS)

    def on_signal(self, number: int, _frame: object = None, *, handled: bool = False) -> None:
        """Take one signal; *handled* says that a handler of the program was called for it."""
        if self._nudged:  # not a signal from outside: the watch wants the main thread to cancel
            self._nudged = False
            self._request(self._cancel_once)
        elif not self._begun:
            handled = handled or self.is_handled(number)
            self._begin(cooperative=handled or self._context.is_cooperative)
        elif not self._hurried and not self._context.supervised:
            # (A service manager signals each process of a service, and so does its supervisor.)
            self._hurry(signal.Signals(number).name)

    def _begin(self, *, cooperative: bool) -> None:
        self._begun = True
        grace = self._context.grace_seconds
        self._end_within(grace + CLEAN_UP_SECONDS)
        self._start_watch(grace, f"the grace period of {grace:g} s ran out")
        try:
            self._context.begin_stopping()
        finally:
            if not cooperative:
                self._cancel_wanted = True
                self._request(self._cancel_unless_waiting)

    def _hurry(self, name: str) -> None:
        self._hurried = True
        self._end_within(CLEAN_UP_SECONDS)
        self._start_watch(0.0, f"a second signal came, {name}", hurried=True)
        self._cancel_wanted = True
        self._request(self._cancel_once)

    def _end_within(self, seconds: float) -> None:
        now = time.monotonic()
        if now + seconds < self._ends_at:
            self._ends_at = now + seconds
            late = seconds + _LAST_RESORT_SECONDS
            with suppress(RuntimeError):  # no thread to be had: the manager's own limit remains
                faulthandler.dump_traceback_later(late, exit=True, file=_STDERR)

    def _request(self, cancel: Callable[[], object]) -> None:
        schedule = self._schedule
        if schedule is not None:
            schedule(cancel)

    def _cancel_unless_waiting(self) -> None:
        # Asked again when it is done: a program that says `ready` and waits in its next line must
        # not be cancelled because the signal came between the two.
        if not self._context.is_cooperative:
            self._cancel_once()

    def _cancel_once(self) -> None:
        cancel, self._cancel = self._cancel, None
        if cancel is not None:  # a second one would cut the clean-up that the first began
            cancel()

    def _start_watch(self, seconds: float, why: str, *, hurried: bool = False) -> None:
        done = _make_held_lock()
        # Not threading.Thread: its locks may be held by the very code that the signal interrupted.
        with suppress(RuntimeError):
            start_new_thread(self._watch, (seconds, why, hurried, done))
            self._watches.append(done)

    def _watch(self, seconds: float, why: str, hurried: bool, done: LockType) -> None:  # noqa: FBT001 - start_new_thread has no keywords
        try:
            if self._has_ended(seconds) or (self._hurried and not hurried):
                return  # it ended, or the second signal's watch has taken over
            self._say(f"{why}: it has {CLEAN_UP_SECONDS:g} s to clean up")
            self._cancel_wanted = True
            if not self._needs_main_thread:
                self._request(self._cancel_once)
            elif self._cancel is not None:
                self._nudged = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            if not self._has_ended(CLEAN_UP_SECONDS):
                self._say(f"it does not end, and is ended; its tasks and threads:\n{self._look()}")
                os._exit(_HARD_END)  # what `faulthandler` would do, were this thread not first
        finally:
            done.release()

    def _has_ended(self, seconds: float) -> bool:
        ended = self._running.acquire(timeout=seconds)
        if ended:
            self._running.release()
        return ended

    def _look(self) -> str:
        from forkfirst.runtime import stacks  # noqa: PLC0415 - only where something is wrong

        try:
            return self._context.describe_tasks() + stacks.describe_threads()
        except Exception as error:  # noqa: BLE001 - they change while they are looked at
            return f"(they cannot be shown: {error!r})"

    def _say(self, text: str) -> None:
        # Not through sys.stderr: the thread that is stuck may hold its lock.
        octets = f"forkfirst: {self._context.name}: {text}\n".encode(errors="replace")
        with suppress(OSError):
            while octets:
                octets = octets[os.write(_STDERR, octets) :]


def _make_held_lock() -> LockType:
    lock = allocate_lock()
    lock.acquire()
    return lock
