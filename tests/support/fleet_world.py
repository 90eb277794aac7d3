"""A world of pretended processes around `react`, which objects to whatever breaks a law.

It does what the supervisor does, with a clock that only moves when told to. It keeps its own book
of who takes work, from the actions alone, and compares it with the fleet's after each event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkfirst.plan.fleet import events
from forkfirst.plan.fleet import state as states
from forkfirst.plan.fleet.machine import make_fleet, react

if TYPE_CHECKING:
    from forkfirst.plan.fleet.state import Fleet, Generation, Settings

_SERVES = (states.SERVING, states.DEGRADED)
_LIMITED = (states.STARTING, states.YIELDING, states.HUNG, states.DRAINING, states.KILLED)


def object_unless(holds: bool, law: str, *facts: object) -> None:  # noqa: FBT001 - reads as assert does
    """Raise AssertionError with *law* and *facts* unless it *holds*."""
    if not holds:
        message = f"{law}: {facts}"
        raise AssertionError(message)


def find_serving(fleet: Fleet) -> Generation | None:
    return next((one for one in fleet.generations if one.state in _SERVES), None)


def compute_longest_wait(settings: Settings) -> float:
    """Return the longest time that any timer of *settings* may be away."""
    return max(
        settings.ready_timeout,
        settings.health_timeout,
        settings.grace_seconds + settings.cancel_seconds,
        settings.stacks_seconds,
        settings.kill_seconds,
        settings.commit_window,
        settings.max_age,
        settings.backoff_limit * (1 + settings.backoff_jitter),
    )


class World:
    """A fleet with its pretended processes.

    Attributes:
        book: What each living process has been told last.
        reports: Every report so far.
        unanswered: The tickets of reloads that wait for their answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.fleet = make_fleet(settings)
        self.now = 1000.0
        self.book: dict[int, str] = {}
        self.known: set[int] = set()
        self.timer: float | None = None
        self.reports: list[events.Action] = []
        self.forgotten: list[int] = []
        self.unanswered: list[str] = []
        self.starts = 0
        self.finished: int | None = None
        self.longest_wait = compute_longest_wait(settings)
        self.do(events.StartAsked())

    # -- what can be asked of it ------------------------------------------------------------------

    def do(self, event: events.Event) -> tuple[events.Action, ...]:
        """Let *event* happen, carry out what follows, and check every law."""
        before, asleep = self.fleet, self.list_told("paused")
        self._note(event)
        self.fleet, actions = react(before, event, self.now)
        object_unless(
            before.state != states.FINISHED or not actions, "nothing after the end", event
        )
        for action in actions:
            self._carry_out(action)
        self._note_who_yields()
        self._check_the_book()
        self._check_slots()
        self._check_queues(before)
        self._check_enough_are_ready(before, event, asleep)
        self._check_one_generation_takes_work()
        self._check_times()
        self._check_nobody_too_many()
        return actions

    def wait(self, seconds: float) -> None:
        """Let time pass, with a tick whenever the timer says so."""
        until = self.now + seconds
        while self.timer is not None and self.timer <= until:
            self.now, self.timer = max(self.now, self.timer), None
            self.do(events.Tick())
        self.now = until

    def cooperate(self) -> None:
        """Have each process do what it was told, until nobody has anything left to do."""
        for _ in range(200):
            todo = [(one, told) for one, told in self.book.items() if told not in _AT_REST]
            if not todo:
                return
            for one, told in todo:
                if one in self.book and self.book[one] == told:
                    self._obey(one, told)
        object_unless(False, "a fleet whose workers obey comes to rest", self.fleet)  # noqa: FBT003

    def list_told(self, *told: str) -> list[int]:
        """Return the living processes that were told one of these last."""
        return [one for one, last in self.book.items() if last in told]

    # -- the pretended processes ------------------------------------------------------------------

    def _obey(self, one: int, told: str) -> None:
        if told == "start":
            self.do(events.Started(worker=one, share=0.5))
            self.do(events.Ready(worker=one))
        elif told == "check":
            self.book[one] = "work"
            self.do(events.Health(worker=one, healthy=True))
        elif told in _YIELDS:
            self.do(events.Queued(worker=one, connections=0))
        else:
            self.do(events.Exited(worker=one, status=0 if told == "drain" else 137))

    def _note(self, event: events.Event) -> None:
        if isinstance(event, events.Ready) and self.book.get(event.worker) == "start":
            self.book[event.worker] = "work"
        elif isinstance(event, events.Hung) and event.worker in self.list_told("work", "check"):
            self.book[event.worker] = "hang"
        elif isinstance(event, events.Exited):
            self.book.pop(event.worker, None)
        elif isinstance(event, events.ReloadAsked) and self.fleet.state != states.FINISHED:
            self.unanswered.append(event.ticket)
            if event.settings is not None:
                wait = compute_longest_wait(event.settings)
                self.longest_wait = max(self.longest_wait, wait)
        elif isinstance(event, events.Tick):
            self.timer = None

    def _carry_out(self, action: events.Action) -> None:
        told = _TOLD.get(type(action))
        if isinstance(action, events.StartWorker):
            object_unless(action.worker not in self.known, "an id is used once", action)
            self.known.add(action.worker)
            self.book[action.worker] = "start"
            self.starts += 1
        elif told is not None:
            worker: int = action.worker  # type: ignore[attr-defined]
            last = self.book.get(worker)
            object_unless(last in told[0], "an order fits who gets it", action, last)
            if told[1] == "gone":
                del self.book[worker]
            elif told[1]:
                self.book[worker] = told[1]
        elif isinstance(action, events.ArmTimer):
            self.timer = action.at
        elif isinstance(action, events.Finish):
            object_unless(self.finished is None, "the end comes once", action)
            self.finished = action.exit_status
        elif isinstance(action, events.ForgetGeneration):
            object_unless(action.generation not in self.forgotten, "forgotten once", action)
            self.forgotten.append(action.generation)
        else:
            self.reports.append(action)
            for ticket in getattr(action, "tickets", ()):
                object_unless(ticket in self.unanswered, "an answer is given once", action)
                self.unanswered.remove(ticket)

    def _note_who_yields(self) -> None:
        """Nobody is told that they yield: it is their socket that is dealt no more connections."""
        for worker in self.fleet.workers:
            told = self.book[worker.id]
            if worker.state == states.YIELDING and told not in _YIELDS:
                self.book[worker.id] = "yield"
            elif worker.state == states.READY and told in _YIELDS:
                self.book[worker.id] = "work"

    # -- the laws ---------------------------------------------------------------------------------

    def _check_the_book(self) -> None:
        ready = {one.id for one in self.fleet.workers if one.state == states.READY}
        works = set(self.list_told("work", "check"))
        object_unless(ready == works, "ready are those who take work", ready, works)
        alive = {one.id for one in self.fleet.workers}
        object_unless(alive == set(self.book), "the fleet has whoever lives", alive, self.book)

    def _count_ready(self, fleet: Fleet, generation: Generation) -> int:
        states_of = [one.state for one in fleet.workers if one.generation == generation.number]
        return states_of.count(states.READY)

    def _check_enough_are_ready(
        self, before: Fleet, event: events.Event, asleep: list[int]
    ) -> None:
        """Nothing but death and a stop takes a ready worker away from those asked for."""
        old, new = find_serving(before), find_serving(self.fleet)
        if old is None or new is None or self.fleet.state in (states.STOPPING, states.FINISHED):
            return
        asked = new.asked - new.retired
        have = self._count_ready(self.fleet, new)
        if new.number > old.number:  # committed
            enough = asked
        elif new.number < old.number:  # rolled back
            enough = min(asked, len(asleep))
        else:
            died = isinstance(event, events.Exited | events.Hung)
            enough = min(asked, self._count_ready(before, old) - int(died))
        object_unless(have >= enough, "never fewer ready than asked", have, enough, event)

    def _check_one_generation_takes_work(self) -> None:
        if self.fleet.state not in (states.RUNNING, states.DECIDING):
            return
        serving = find_serving(self.fleet)
        working = {one.generation for one in self.fleet.workers if one.state == states.READY}
        number = serving.number if serving else 0
        object_unless(working <= {number}, "only one generation takes work", working, number)

    def _check_slots(self) -> None:
        """Two of a generation have one socket only while one replaces the other."""
        for generation in self.fleet.generations:
            staying = [
                one.slot
                for one in self.fleet.workers
                if one.generation == generation.number and one.state in _STAYS and not one.due
            ]
            once = len(staying) == len(set(staying))
            object_unless(once, "a socket for each worker", staying, generation)

    def _check_queues(self, before: Fleet) -> None:
        """No decision takes the last one away who accepts from a socket, while that is in use."""
        spread = {one.number for one in before.generations if one.settings.yield_seconds}
        worked = {one.id for one in before.workers if one.state == states.READY}
        accepted = {one.slot for one in self.fleet.workers if one.state in _ACCEPTS}
        if self.fleet.state in (states.STOPPING, states.FINISHED):
            return
        for one in self.fleet.workers:
            left = one.id in worked and one.state in (states.DRAINING, states.PAUSED)
            kept = not left or one.generation not in spread or one.slot in accepted
            object_unless(kept, "no queue is left behind", one, accepted)

    def _check_times(self) -> None:
        latest = self.now + self.longest_wait
        object_unless(self.fleet.timer == self.timer, "the timer is the one armed", self.timer)
        for worker in self.fleet.workers:
            if worker.state in _LIMITED:
                due = worker.deadline
                object_unless(due is not None and due <= latest, "every state ends", worker)
                object_unless(self.timer is not None, "somebody looks when it does", worker)
        if self.timer is not None:
            object_unless(self.now <= self.timer <= latest, "every timer is bounded", self.timer)

    def _check_nobody_too_many(self) -> None:
        for generation in self.fleet.generations:
            workers = [one for one in self.fleet.workers if one.generation == generation.number]
            active = [one for one in workers if one.state in (states.STARTING, states.READY)]
            most = generation.asked + (generation.state in _SERVES)  # one replaces one that is due
            object_unless(len(active) <= most, "no more than asked for", active, generation)
        object_unless(len(self.fleet.generations) <= len(self.known) + 1, "generations end")


_STAYS = (states.STARTING, states.READY, states.PAUSED)
_ACCEPTS = (states.READY, states.YIELDING)
_AT_REST = ("work", "paused")
_YIELDS = ("yield", "queue")
_ALIVE = ("start", "work", "check", "paused", "hang", "drain", *_YIELDS)
_TOLD: dict[type[events.Action], tuple[tuple[str, ...], str]] = {
    events.Drain: (("start", "work", "check", "paused", "hang", *_YIELDS), "drain"),
    events.Pause: (("work", "check"), "paused"),
    events.Resume: (("paused",), "work"),
    events.Kill: (_ALIVE, "kill"),
    events.CheckQueue: (_YIELDS, "queue"),
    events.LogStacks: (("hang",), ""),
    events.CheckHealth: (("work", "check"), "check"),
    events.Abandon: (("kill",), "gone"),
}
