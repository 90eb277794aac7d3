"""The supervisor's loop: it waits, tells the fleet what happened, and does what the fleet decides.

One thread, one poll(2) for everything: signals, what the workers say, who asks on the control
socket, and one timer. It never has a runtime and imports nothing but the standard library and us,
so it may fork for as long as it lives. While nothing happens it does not wake up.
"""

from __future__ import annotations

import os
import select
import signal
import time

from forkfirst import errors
from forkfirst.plan import service, steps
from forkfirst.plan.fleet import events
from forkfirst.plan.fleet import machine as fleet
from forkfirst.stages.preload import preloading
from forkfirst.stages.supervise import (
    actions,
    hearing,
    outside,
    reloading,
    starting,
    told,
)
from forkfirst.stages.supervise.kit import Kit
from forkfirst.stages.supervise.looking import Looks
from forkfirst.stages.supervise.spread import Spread
from forkfirst.unix import session, signals
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

    from forkfirst.stages.preload.preloading import Template
    from forkfirst.stages.start import Start
    from forkfirst.stages.supervise.process import Process
    from forkfirst.stages.taking import Table
    from forkfirst.stages.upgrade.upgrading import Upgrade
    from forkfirst.unix.channel import Report

_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)
_AFTER_THE_LAUNCHER = 5.0
"""Seconds that a first worker has longer than the launcher waits: it shows where that one hangs."""
_STDERR = 2


def supervise(_: steps.Supervise, start: Start) -> NoReturn:
    """Keep the workers of *start* until the service ends; leave with its exit status."""
    supervisor = Supervisor(start)
    leave_after(supervisor, supervisor.run)


def leave_after(supervisor: Supervisor, work: Callable[[], int]) -> NoReturn:
    """Do *work* as *supervisor*, tidy up, and leave with the status that it returns."""
    start = supervisor.start
    status = errors.ForkfirstError.exit_status
    try:
        status = work()
        preloading.end_all(supervisor)
    except BaseException:  # noqa: BLE001 - a bug of ours; the workers die with us
        import traceback  # noqa: PLC0415 - only for that

        traceback.print_exc()
    if start.server is not None:
        start.server.stop()
    if status:
        start.note_end(status)
    start.tidy()
    session.leave(status)


class Supervisor:
    """What the supervisor knows.

    Attributes:
        start: What it was handed.
        fleet: The workers as the pure state machine has them.
        processes: The workers as processes, by the fleet's number.
        templates: What workers are forked from, by the generation; none where they are forked here.
        kits: What each generation has.
        spread: The sockets of listeners that have one for each worker.
        tickets: What each reload in progress brought, and where its answer goes.
        last_ticket: The number of the last of them.
        spawned: What else was started, by pid.
        upgrade: The one in progress, or None.
        looks: When it looks at the workers next.
        control: The path of the control socket, or its name in the kernel after an "@".
        finished: The exit status, when nothing is left.
    """

    def __init__(self, start: Start) -> None:
        self.start = start
        self.kits: dict[int, Kit] = {}
        self.first_kit = Kit(start.plan, start.listeners)
        self.spread = Spread(start.spread)
        settings = service.make_settings(start.plan.service, reloading.count_processors())
        if start.report_to >= 0:
            settings = replace(settings, ready_timeout=settings.ready_timeout + _AFTER_THE_LAUNCHER)
        self.fleet = fleet.make_fleet(settings)
        self.processes: dict[int, Process] = {}
        self.templates: dict[int, Template] = {}
        self.tickets: dict[str, actions.Ticket] = {}
        self.last_ticket = 0
        self.control = ""
        self.finished: int | None = None
        self.spawned: dict[int, str] = {}
        self.upgrade: Upgrade | None = None
        self._happened: list[events.Event] = []
        self._is_reacting = False
        self.looks = Looks()
        self._feed_at = float("inf")
        self._wake, self._wake_end = _open_wakeup()

    def run(self) -> int:
        """Start the workers, and keep them until nothing is left; return the exit status."""
        self.prepare()
        signals.unblock_all()
        self.happen(events.StartAsked())
        self.looks.plan(self)
        return self._keep()

    def resume(self, numbers: Iterable[int]) -> int:
        """Go on where this process stopped to execute another; it had been sent *numbers*."""
        signals.unblock_all()
        for process in tuple(self.processes.values()):
            hearing.hear(self, process)
        self.obey((*numbers, signal.SIGCHLD))
        return self._keep()

    def prepare(self) -> None:
        """Answer on the control socket, and hear the signals that are let through."""
        import gc  # noqa: PLC0415 - built in

        gc.enable()
        told.serve(self)
        for number in _SIGNALS:
            signal.signal(number, _be_woken)

    def _keep(self) -> int:
        """Wait, and deal with what happens, until nothing is left."""
        self._feed_at = outside.feed(self)
        while self.finished is None:
            self._turn()
        return self.finished

    def happen(self, event: events.Event) -> None:
        """Tell the fleet that *event* happened, and do what it decides, in its order."""
        self._happened.append(event)
        if self._is_reacting:
            return  # what an action brings about comes after the actions that were decided before
        self._is_reacting = True
        try:
            while self._happened and self.finished is None:
                event = self._happened.pop(0)
                self.fleet, decided = fleet.react(self.fleet, event, time.monotonic())
                self.spread.follow(self)  # first: who is told to leave is dealt no more connections
                for action in decided:
                    actions.TABLE[type(action)](self, action)
        finally:
            self._is_reacting = False

    def say(self, text: str) -> None:
        """Write a line into the log."""
        line = f"forkfirst: {self.start.plan.service.name}: {text}\n"
        try:
            os.write(_STDERR, line.encode(errors="backslashreplace"))
        except OSError:
            return  # a full disk must not end the service

    def note(self, process: Process, report: Report) -> None:
        """Deal with what a worker or a template has said; see `hearing`."""
        hearing.note(self, process, report)

    def forget(self, process: Process, raw: int) -> None:
        """Deal with the end of a worker; see `hearing`."""
        hearing.forget(self, process, raw)

    @property
    def kit(self) -> Kit:
        """What the serving generation has, or before there is one, the first."""
        serving = [one for one in self.fleet.generations if one.state in ("serving", "degraded")]
        return self.kits.get(serving[0].number, self.first_kit) if serving else self.first_kit

    def count_asked(self) -> int:
        """Return how many workers are asked for now, of the serving generation if there is one."""
        serving = [one for one in self.fleet.generations if one.state in ("serving", "degraded")]
        chosen = serving or list(self.fleet.generations)
        return chosen[-1].asked if chosen else max(1, self.start.plan.service.workers)

    @property
    def children(self) -> list[Process]:
        """The workers and the templates, as processes."""
        return [*self.processes.values(), *self.templates.values()]

    def own_descriptors(self) -> list[int]:
        """Return the descriptors that no worker may have; listeners are not among them."""
        lock = self.start.pid_file.fd if self.start.pid_file is not None else -1
        fds = [lock, self.start.report_to, self._wake, self._wake_end]
        fds += [ticket.fd for ticket in self.tickets.values()]
        fds += self.upgrade.descriptors() if self.upgrade is not None else ()
        for process in self.children:
            fds += process.descriptors()
        return [fd for fd in fds if fd >= 0]

    # -- one turn ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        server = self.start.server
        assert server is not None  # noqa: S101 - `told.serve` has made it
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        heard = {one.fd: one for one in self.children if one.is_heard}
        asked = server.descriptors()
        for fd in heard:
            poll.register(fd, select.POLLIN)
        for fd, wanted in asked.items():
            poll.register(fd, wanted)
        ready = poll.poll(self._milliseconds_until_due(server.seconds_until_due()))
        # Signals first: the stop of all must be known before the workers end of it.
        numbers = self.take_signals()
        self._obey_signals(numbers)
        for fd, _ in ready:
            if fd in heard:
                hearing.hear(self, heard[fd])
        if signal.SIGCHLD in numbers:
            hearing.reap(self)
        self._on_time()
        server.handle((fd, happened) for fd, happened in ready if fd in asked)
        if self.upgrade is not None and self.upgrade.version:  # last: this turn is done
            self.upgrade.take_place(self)

    def _milliseconds_until_due(self, server_seconds: float | None) -> int | None:
        now = time.monotonic()
        due = [self.looks.due, self._feed_at]
        if self.upgrade is not None:
            due.append(self.upgrade.deadline)
        if self.fleet.timer is not None:
            due.append(self.fleet.timer)
        if server_seconds is not None:
            due.append(now + server_seconds)
        first = min(due)
        return None if first == float("inf") else max(0, int((first - now) * 1000) + 1)

    def obey(self, numbers: Iterable[int]) -> None:
        """Deal with signals, in their order, and with those who have ended."""
        numbers = tuple(numbers)
        self._obey_signals(numbers)
        if signal.SIGCHLD in numbers:
            hearing.reap(self)

    def take_signals(self) -> bytes:
        """Return the numbers of the signals that came and were not obeyed yet."""
        try:
            return os.read(self._wake, 4096)
        except BlockingIOError:
            return b""

    def _obey_signals(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            match number:
                case signal.SIGTERM | signal.SIGINT:
                    stopping = self.fleet.state == "stopping"
                    if not stopping:
                        outside.say_stopping(self)
                    self.happen(events.StopAsked(force=stopping))
                case signal.SIGHUP:
                    reloading.spawn(self)
                case signal.SIGTTIN:
                    self.happen(events.ScaleAsked(workers=self.count_asked() + 1))
                case signal.SIGTTOU:
                    self.happen(events.ScaleAsked(workers=self.count_asked() - 1))

    def _on_time(self) -> None:
        now = time.monotonic()
        if self.fleet.timer is not None and self.fleet.timer <= now:
            self.happen(events.Tick(jitter=starting.throw_dice()))
        if self._feed_at <= now:
            self._feed_at = outside.feed(self)
        if self.upgrade is not None and self.upgrade.deadline <= now:
            self.upgrade.give_up(self)
        self.looks.on_time(self, now)


TABLE: Table = {steps.Supervise: supervise}


def _open_wakeup() -> tuple[int, int]:
    receiver, sender = os.pipe()
    os.set_blocking(receiver, False)
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    return receiver, sender


def _be_woken(_: int, __: object) -> None:
    """Take a signal; its number is in the pipe already."""
