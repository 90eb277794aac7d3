"""One fleet on its way from one value to the next: every move of a state, and each single act.

Nothing here knows why; `machine` and `reload` decide.
"""

from __future__ import annotations

from forkfirst.plan.fleet import events, slots
from forkfirst.plan.fleet import state as states
from forkfirst.plan.fleet.state import Fleet, Generation, Settings, Worker
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_BIGGEST_DOUBLING = 60  # 2 ** 60 times any base is beyond any limit, and still a float


def compute_backoff(settings: Settings, failures: int, jitter: float) -> float:
    """Return the wait before a restart after so many failures in a row, in seconds."""
    if failures <= 1:
        return 0.0
    doublings = min(failures - 2, _BIGGEST_DOUBLING)
    wait = min(settings.backoff_limit, settings.backoff_base * (1 << doublings))
    return wait * (1 + settings.backoff_jitter * jitter)


class Change:
    """What `react` works on, and nobody else sees: the parts of a fleet, and the actions so far."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self.before = fleet
        self.now = now
        self.state = fleet.state
        self.generations = {one.number: one for one in fleet.generations}
        self.workers = {one.id: one for one in fleet.workers}
        self.next_worker = fleet.next_worker
        self.next_generation = fleet.next_generation
        self.tickets = fleet.tickets
        self.waiting = fleet.waiting
        self.timer = fleet.timer
        self.exit_status = fleet.exit_status
        self.actions: list[events.Action] = []

    def freeze(self) -> Fleet:
        """Return the fleet as it is now."""
        return Fleet(
            state=self.state,
            settings=self.before.settings,
            generations=tuple(self.generations.values()),
            workers=tuple(self.workers.values()),
            next_worker=self.next_worker,
            next_generation=self.next_generation,
            tickets=self.tickets,
            waiting=self.waiting,
            timer=self.timer,
            exit_status=self.exit_status,
        )

    def act(self, action: events.Action) -> None:
        """Have *action* done after those before it."""
        self.actions.append(action)

    # -- the three places where a state changes ---------------------------------------------------

    def move(self, cause: str) -> None:
        """Move the fleet."""
        self.state = states.FLEET_MOVES[self.state, cause]

    def move_generation(self, number: int, cause: str, **fields: Any) -> None:
        """Move a generation, and change other *fields* of it; its time limit is over."""
        old = self.generations[number]
        state = states.GENERATION_MOVES[old.state, cause]
        if state == states.GONE:
            del self.generations[number]
        else:
            self.change_generation(number, **{"state": state, "until": None, **fields})

    def move_worker(self, worker: Worker, cause: str, seconds: float | None = None) -> None:
        """Move *worker*; *seconds* is how long the new state may last."""
        state = states.WORKER_MOVES[worker.state, cause]
        if state == states.GONE:
            del self.workers[worker.id]
            return
        deadline = None if seconds is None else self.now + seconds
        self.workers[worker.id] = replace(worker, state=state, since=self.now, deadline=deadline)

    def change_generation(self, number: int, **fields: Any) -> None:
        """Change what is not the state of a generation."""
        self.generations[number] = replace(self.generations[number], **fields)

    def change_worker(self, number: int, **fields: Any) -> None:
        """Change what is not the state of a worker."""
        self.workers[number] = replace(self.workers[number], **fields)

    # -- looking ----------------------------------------------------------------------------------

    def list_workers(self, generation: int, *wanted: str) -> list[Worker]:
        """Return the workers of *generation*, in any state or in one of *wanted*, oldest first."""
        return [
            one
            for one in self.workers.values()
            if one.generation == generation and (not wanted or one.state in wanted)
        ]

    def find_generation(self, *wanted: str) -> Generation | None:
        """Return the generation in one of the states *wanted*; there is never a second one."""
        return next((one for one in self.generations.values() if one.state in wanted), None)

    def find_serving(self) -> Generation | None:
        """Return the generation that serves, degraded or not."""
        return self.find_generation(states.SERVING, states.DEGRADED)

    # -- single acts ------------------------------------------------------------------------------

    def add_generation(self, settings: Settings, asked: int, state: str, first: int = 0) -> None:
        """Add a generation that has no workers yet."""
        number = self.next_generation
        self.next_generation += 1
        self.generations[number] = Generation(
            number=number, settings=settings, state=state, asked=asked, first=first
        )

    def start_worker(self, generation: Generation) -> None:
        """Start one more worker of *generation*."""
        number = self.next_worker
        self.next_worker += 1
        self.workers[number] = Worker(
            id=number,
            generation=generation.number,
            state=states.STARTING,
            since=self.now,
            deadline=self.now + generation.settings.ready_timeout,
            attempts=generation.failures,
            slot=slots.choose_slot(self.list_workers(generation.number), generation.asked),
        )
        self.act(events.StartWorker(worker=number, generation=generation.number))

    def retire(self, worker: Worker) -> None:
        """Have *worker* leave; if it alone accepts from its socket, when that has been emptied."""
        settings = self.generations[worker.generation].settings
        if (
            settings.yield_seconds
            and worker.state == states.READY
            and self.state != states.STOPPING
            and slots.is_alone(worker, self.workers.values())
        ):
            self.move_worker(worker, "yield", settings.yield_seconds)
        else:
            self.drain(worker)

    def drain(self, worker: Worker) -> None:
        """Let *worker* finish what it has, and no more.

        One that hangs is told as well, since it could wake up, but gets no more time for it.
        """
        settings = self.generations[worker.generation].settings
        grace = settings.grace_seconds
        seconds = grace + settings.cancel_seconds
        if worker.state == states.HUNG and worker.deadline is not None:
            grace, seconds = 0.0, max(0.0, worker.deadline - self.now)
        self.move_worker(worker, "drain", seconds)
        self.act(events.Drain(worker=worker.id, grace=grace))

    def kill(self, worker: Worker, cause: str = "kill") -> None:
        """End *worker* at once."""
        settings = self.generations[worker.generation].settings
        self.move_worker(worker, cause, settings.kill_seconds)
        self.act(events.Kill(worker=worker.id))

    def discharge(self, generation: int) -> None:
        """Have every worker of *generation* leave, and start no more."""
        for worker in self.list_workers(generation):
            if worker.state == states.YIELDING and self.state != states.STOPPING:
                continue
            if worker.state not in (states.DRAINING, states.KILLED):
                self.retire(worker)
        self.change_generation(generation, restarts=())

    def arm_timer(self) -> None:
        """Have the timer run out at the next time when anything is due."""
        due = min(self._list_times(), default=None)
        if due is not None:
            due = max(due, self.now)
        if due != self.timer:
            self.timer = due
            self.act(events.ArmTimer(at=due))

    def _list_times(self) -> Iterable[float]:
        for worker in self.workers.values():
            if worker.deadline is not None:
                yield worker.deadline
            if worker.state == states.READY and not worker.due and worker.recycle_at is not None:
                yield worker.recycle_at
        for generation in self.generations.values():
            yield from generation.restarts
            if generation.until is not None:
                yield generation.until
