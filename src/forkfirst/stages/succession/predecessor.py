"""The old process in a reload without a supervisor: it makes its successor, hands over, and drains.

Each reload has a thread of its own, so the control thread goes on answering and the program goes on
serving. Nothing is forked here, for the runtime is alive: the successor is a fresh interpreter.

Invariant: until the successor has said that it has taken over, this process is the service, with
its lock, its control socket and its pid in the pid file.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

from forkfirst import errors
from forkfirst.stages import reload
from forkfirst.stages.start import unlink_if_same
from forkfirst.stages.succession import estate, process
from forkfirst.unix import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forkfirst.stages.fork_first import Forked
    from forkfirst.stages.start import Start
    from forkfirst.stages.succession.process import Ready


class Wanted:
    """One reload that was asked for: what it brought, which is ours to close.

    Attributes:
        answer: Where whoever asked waits.
        plan: The plan, as it came.
        listeners: Name and descriptor of each listener of the successor.
        fresh: The descriptors that were opened for it.
        paths: Sockets that were made for it: path, inode and device.
        kept: The paths of all that is declared now.
        seconds: How long the successor may take to be ready.
    """

    def __init__(self, request: Mapping[str, Any], start: Start) -> None:
        passed: list[int] = request.get("descriptors", [])
        texts = request["listeners"]
        if len(passed) != 1 + len(texts):
            message = f"{len(passed)} descriptors came for an answer and {len(texts)} listeners"
            raise ValueError(message)
        declared = [(str(name), str(text), str(path)) for name, text, path in request["declared"]]
        opened = dict(zip(texts, passed[1:], strict=True))
        self.listeners = reload.choose_listeners(
            start.listeners,
            addresses_of(start),
            [(name, text) for name, text, _ in declared],
            opened,
        )
        self.plan = str(request["plan"])
        self.seconds = float(request["ready_seconds"])
        self.kept = frozenset(path for _, _, path in declared if path)
        self.paths = [_identify(path) for _, text, path in declared if path and text in opened]
        self.answer, *self.fresh = passed
        passed.clear()  # they are ours now

    def refuse(self, reason: str, hint: str = "") -> None:
        """Say that nothing came of it, and leave nothing of it."""
        self._drop()
        reload.answer(self.answer, "failed", reason=reason, hint=hint)

    def send_on(self) -> None:
        """Have it asked for again: the service is another process by now."""
        self._drop()
        reload.answer(self.answer, "moved")

    def _drop(self) -> None:
        for path in self.paths:
            with suppress(OSError):
                unlink_if_same(*path)
        for fd in self.fresh:
            os.close(fd)


class Predecessor:
    """Makes successors of this process, one at a time, until one has taken over.

    Attributes:
        gone: Whether one has: then this process only finishes what it has accepted.
    """

    def __init__(self, start: Start) -> None:
        self.gone = False
        self._start = start
        self._queue = threading.Lock()  # of the two below
        self._is_busy = False
        self._waiting: list[Wanted] = []
        self._deciding = threading.Lock()  # held while it is open who is the service
        self._forked: Forked | None = None

    def take_request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Begin the reload that *request* brings; its answer goes to the pipe that came with it.

        The first descriptor is that pipe's, the others are the listeners that `listeners` names.
        """
        wanted = Wanted(request, self._start)
        with self._queue:
            if self.gone:
                wanted.send_on()
            elif not self._is_busy:
                self._is_busy = True
                threading.Thread(target=self._carry_out, args=(wanted,), daemon=True).start()
            elif request.get("wait"):
                self._waiting.append(wanted)
            else:
                wanted.refuse("another reload is in progress")
        return {}

    def stop(self) -> None:
        """Have the successor stop as well, whichever of us is the service. For a signal handler."""
        forked = self._forked
        if forked is not None and not self.gone:
            with suppress(OSError):
                channel.send(forked.sender, "stop")

    def end(self) -> None:
        """End a successor that has not taken over: this process is leaving, and is the service."""
        with self._deciding:
            if not self.gone and self._forked is not None:
                process.end(self._forked)
                self._forked = None

    # -- one reload, in its thread -----------------------------------------------------------------

    def _carry_out(self, wanted: Wanted) -> None:
        while True:
            try:
                self._succeed(wanted)
            except errors.ForkfirstError as error:
                wanted.refuse(str(error), error.hint)
            except Exception as error:  # noqa: BLE001 - whoever asked must hear of it
                # What this process has loaded lately may be of another version than the rest of it.
                restart = f"forkfirst restart {self._start.plan.service.name}"
                hint = f"if forkfirst itself was replaced since this process was started: {restart}"
                wanted.refuse(f"{type(error).__name__}: {error}", hint)
            with self._queue:
                if self.gone or not self._waiting:
                    self._is_busy = False
                    break
                wanted = self._waiting.pop(0)
        if self.gone:
            for one in self._waiting:  # nobody comes to them any more
                one.send_on()
            self._drain()

    def _succeed(self, wanted: Wanted) -> None:
        start = self._start
        forked = self._forked = process.spawn(start)
        try:
            with suppress(BrokenPipeError):  # why it has ended already is on its way
                estate.hand_over(
                    forked.sender,
                    start,
                    plan=wanted.plan,
                    listeners=wanted.listeners,
                    paths=[*start.paths, *wanted.paths],
                    kept=wanted.kept | {start.plan.places.control_socket},
                    answer=wanted.answer,
                )
            ready = process.wait_ready(forked, wanted.seconds)
            with self._deciding:
                self._let_take_over(forked, ready)
        except BaseException:
            with self._deciding:
                if self._forked is not None:
                    process.end(forked)
                    self._forked = None
            raise
        for fd in (*wanted.fresh, wanted.answer):
            os.close(fd)

    def _let_take_over(self, forked: Forked, ready: Ready) -> None:
        """Say "take over", and be no more the service when the successor says that it is.

        Raises:
            ForkfirstError: It did not; this process is the service as before.
        """
        start = self._start
        context = start.facts.context if start.facts is not None else None
        if start.server is not None:
            start.server.pause(paused=True)  # who asks now waits in the queue that both of us have
        if context is not None:
            context.end_accepting()  # the successor does already; who comes after the answer is its
        if process.is_ours(forked.child):
            forked.dismiss()  # now the successor's parent is whoever starts services
        try:
            with suppress(BrokenPipeError):
                channel.send(forked.sender, "take over")
            process.wait_taken(forked)
        except BaseException:
            process.end(forked, ready)
            self._forked = None
            if start.pid_file is not None:
                start.pid_file.rewrite(os.getpid())  # it may have been written over
            if start.server is not None:
                start.server.pause(paused=False)
            if context is not None:
                context.resume_accepting()
            raise
        self.gone = True
        if start.manager is not None:
            start.manager.say_succeeded(ready.pid, ready.pidfd, ready.status)
            with suppress(OSError):
                channel.send(forked.sender, "speak")
        if ready.pidfd is not None:
            os.close(ready.pidfd)
        start.give_away()

    def _drain(self) -> None:
        """Stop as for a SIGTERM, but for what others have by now; the queue is the successor's."""
        facts = self._start.facts
        context = facts.context if facts is not None else None
        if context is None or context.stopping:
            return
        context.held_outside = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def addresses_of(start: Start) -> dict[str, tuple[int, ...]]:
    """Return the descriptors of each listener that is declared, by the text that declares it."""
    from forkfirst.stages.supervise.kit import Kit  # noqa: PLC0415 - when a reload is asked for

    return Kit(start.plan, start.listeners).addresses


def why_not(start: Start) -> tuple[str, str]:
    """Return why this process can have no successor, and what to do; two empty texts if it can."""
    hint = "run it with --workers 1, whose supervisor keeps the pid"
    if start.plan.mode == "first process":
        return "it is the one child of process 1, which ends with it", hint
    if start.plan.mode == "daemon" or (start.manager and start.manager.follows):
        return "", ""
    return "it runs in the foreground, where whoever started it waits for this very pid", hint


def _identify(path: str) -> tuple[str, int, int]:
    facts = os.lstat(path)
    return path, facts.st_ino, facts.st_dev
