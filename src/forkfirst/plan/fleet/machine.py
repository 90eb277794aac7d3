"""How a fleet of workers answers to what happens: `react`, a pure state machine.

What holds, whatever happens in whatever order (tests/plan/test_fleet.py):

- No decision of ours leaves fewer workers ready than are asked for, if there were enough.
- Once a new generation serves, nobody of another one takes work.
- A reload that fails leaves the serving generation as it was.
- After a request to stop the fleet ends, even if no process ever answers.
- There is one timer, and it is never further away than the settings allow.

The caller has the clock, the dice and the processes; it carries out the actions in their order.
Events about workers that are gone, or that come too late to matter, change nothing.
"""

from __future__ import annotations

from forkfirst.plan.fleet import events, reload, slots
from forkfirst.plan.fleet import state as states
from forkfirst.plan.fleet.change import Change, compute_backoff
from forkfirst.plan.fleet.state import Fleet, Generation, Settings, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TIMED_OUT = 124  # as timeout(1)
_FAILED = 70  # EX_SOFTWARE
_QUEUE_EVERY = 0.1
"""Seconds between two looks at a queue that was not empty."""


def make_fleet(settings: Settings) -> Fleet:
    """Return a fleet to which nothing has happened yet; its first event is StartAsked."""
    return Fleet(state=states.STARTING, settings=settings)


def react(fleet: Fleet, event: events.Event, now: float) -> tuple[Fleet, tuple[events.Action, ...]]:
    """Return the fleet after *event*, at the time *now*, and what is to be done.

    *now* is in seconds on a clock that never goes back.
    """
    if fleet.state == states.FINISHED:
        return fleet, ()
    change = Change(fleet, now)
    _HANDLERS[type(event)](change, event)
    _settle(change)
    return change.freeze(), tuple(change.actions)


# -- what each event means ------------------------------------------------------------------------


def _on_start_asked(change: Change, _: events.StartAsked) -> None:
    if change.state == states.STARTING and not change.generations:
        settings = change.before.settings
        change.add_generation(settings, max(1, settings.workers), states.STARTING)


def _on_started(change: Change, event: events.Started) -> None:
    if event.worker in change.workers:
        change.change_worker(event.worker, share=event.share)


def _on_ready(change: Change, event: events.Ready) -> None:
    worker = change.workers.get(event.worker)
    if worker is None or worker.state != states.STARTING:
        return  # too late: it has been told to leave
    generation = change.generations[worker.generation]
    change.move_worker(worker, "ready")
    age = _shorten(generation.settings.max_age, generation.settings, worker)
    change.change_worker(
        worker.id, ready_at=change.now, recycle_at=change.now + age if age else None
    )
    if generation.state == states.CANARY:
        change.act(events.CheckHealth(worker=worker.id))


def _on_exited(change: Change, event: events.Exited) -> None:
    worker = change.workers.get(event.worker)
    if worker is None:
        return
    change.move_worker(worker, "exited")
    if worker.state in (states.STARTING, states.READY):  # the others were on their way out
        early = " before it was ready" if worker.state == states.STARTING else ""
        reason = f"worker {worker.id} ended with status {event.status}{early}"
        _lose(change, worker, event.status, reason, event.jitter)


def _on_hung(change: Change, event: events.Hung) -> None:
    worker = change.workers.get(event.worker)
    if worker is None or worker.state != states.READY:
        return  # in every other state a time limit is running already
    settings = change.generations[worker.generation].settings
    change.move_worker(worker, "hung", settings.stacks_seconds)
    change.act(events.LogStacks(worker=worker.id))
    _lose(change, worker, _TIMED_OUT, f"the loop of worker {worker.id} hangs", event.jitter)


def _on_health(change: Change, event: events.Health) -> None:
    worker = change.workers.get(event.worker)
    if worker is None:
        return
    change.change_worker(worker.id, healthy=event.healthy)
    generation = change.generations[worker.generation]
    if event.healthy or worker.state != states.READY:
        return
    # A serving worker that is not well is not replaced: what makes one ill, such as a database
    # that is away, makes all of them ill, and their successors.
    reason = f"worker {worker.id} is not healthy"
    reason += f": {event.reason}" if event.reason else ""
    if change.state == states.RELOADING and generation.state in (states.CANARY, states.STARTING):
        reload.fail(change, generation, reason, worker.id)
    elif generation == change.find_serving() and reload.can_roll_back(change):
        reload.roll_back(change, reason, worker.id)


def _on_measured(change: Change, event: events.Measured) -> None:
    worker = change.workers.get(event.worker)
    if worker is None:
        return
    settings = change.generations[worker.generation].settings
    most_requests = _shorten(settings.max_requests, settings, worker)
    most_memory = _shorten(settings.max_memory, settings, worker)
    if most_requests and event.requests >= most_requests:
        _make_due(change, worker, f"it has served {event.requests} requests")
    elif most_memory and event.memory >= most_memory:
        _make_due(change, worker, f"it has {event.memory} bytes of memory")


def _on_queued(change: Change, event: events.Queued) -> None:
    worker = change.workers.get(event.worker)
    if worker is not None and worker.state == states.YIELDING and not event.connections:
        change.drain(worker)


def _on_recycle(change: Change, event: events.Recycle) -> None:
    worker = change.workers.get(event.worker)
    if worker is not None:
        _make_due(change, worker, event.reason)


def _on_reload_asked(change: Change, event: events.ReloadAsked) -> None:
    if change.state == states.RUNNING:
        reload.begin(change, (event.ticket,), event.settings)
    elif change.state != states.STOPPING and event.wait:
        change.waiting += (event,)
    else:
        why = {
            states.STARTING: "the service is still starting",
            states.STOPPING: "the service is stopping",
        }
        reason = why.get(change.state, "another reload is in progress")
        change.act(events.ReportReloadFailed(tickets=(event.ticket,), reason=reason))


def _on_scale_asked(change: Change, event: events.ScaleAsked) -> None:
    asked = max(1, event.workers)
    for generation in tuple(change.generations.values()):
        if generation.state == states.LEAVING:
            continue
        first = min(generation.first, asked)
        if generation.state == states.DEGRADED:  # whoever asks for workers wants them started
            change.move_generation(generation.number, "scaled", failures=0)
        change.change_generation(generation.number, asked=asked, first=first, retired=0)


def _on_stop_asked(change: Change, event: events.StopAsked) -> None:
    if change.state != states.STOPPING:
        if change.state == states.STARTING:
            reason = "it was stopped before it was ready"
            change.act(events.ReportStartFailed(reason=reason, exit_status=event.exit_status))
        _leave(change, "stop", event.exit_status)
    if event.force:
        for worker in tuple(change.workers.values()):
            if worker.state != states.KILLED:
                change.kill(worker)


def _on_tick(change: Change, event: events.Tick) -> None:
    change.timer = None  # it has run out, so it is armed anew for whatever is next
    for number in tuple(change.workers):  # by number: the end of one may change the others
        worker = change.workers[number]
        if worker.deadline is not None and worker.deadline <= change.now:
            _end_time(change, worker, event.jitter)
        elif worker.recycle_at is not None and worker.recycle_at <= change.now:
            _make_due(change, worker, "it is old enough")
    for number in tuple(change.generations):
        generation = change.generations[number]
        later = tuple(at for at in generation.restarts if at > change.now)
        change.change_generation(generation.number, restarts=later)
        if generation.until is not None and generation.until <= change.now:
            if generation.state == states.CANARY:
                seconds = f"{generation.settings.health_timeout:g} seconds"
                reload.fail(change, generation, f"its health was not known after {seconds}")
            else:
                reload.commit(change)


_HANDLERS: dict[type[events.Event], Callable[[Change, Any], None]] = {
    events.StartAsked: _on_start_asked,
    events.Started: _on_started,
    events.Ready: _on_ready,
    events.Exited: _on_exited,
    events.Hung: _on_hung,
    events.Health: _on_health,
    events.Measured: _on_measured,
    events.Queued: _on_queued,
    events.Recycle: _on_recycle,
    events.ReloadAsked: _on_reload_asked,
    events.ScaleAsked: _on_scale_asked,
    events.StopAsked: _on_stop_asked,
    events.Tick: _on_tick,
}


# -- workers that are lost, late or old ---------------------------------------------------------


def _lose(change: Change, worker: Worker, status: int, reason: str, jitter: float) -> None:
    """Decide what the unwanted end of *worker*, which was starting or ready, means."""
    generation = change.generations[worker.generation]
    if change.state == states.STARTING:
        exit_status = status or _FAILED  # ended well, but before it had begun
        report = events.ReportStartFailed(reason=reason, exit_status=exit_status, worker=worker.id)
        change.act(report)
        _leave(change, "failed", exit_status)
        return
    if generation.state in (states.CANARY, states.STARTING):
        reload.fail(change, generation, reason, worker.id)
        return
    if change.state == states.DECIDING and generation == change.find_serving():
        if reload.can_roll_back(change):
            reload.roll_back(change, reason, worker.id)
            return
        reload.commit(change)  # nobody is left to come back: the new one is all there is
    if generation.state == states.SERVING:
        _replace_lost(change, generation, worker, status, jitter)


def _replace_lost(
    change: Change, generation: Generation, worker: Worker, status: int, jitter: float
) -> None:
    """Restart at once, later, or not: by the policy, and by how often it has failed in a row."""
    settings, number = generation.settings, generation.number
    change.change_generation(number, last_status=status or generation.last_status)
    if settings.restart == "never" or (settings.restart == "on-failure" and status == 0):
        change.change_generation(number, retired=generation.retired + 1)
        return
    if _is_stable(worker, settings, change.now):
        return  # `_balance` starts the next one at once
    proven = any(
        _is_stable(one, settings, change.now) and (one.ready_at or 0.0) > generation.failed_at
        for one in change.list_workers(number, states.READY)
    )
    failures = 1 if proven else generation.failures + 1
    change.change_generation(number, failures=failures, failed_at=change.now)
    if failures >= settings.crash_limit:
        change.move_generation(number, "crash loop", restarts=())
        ready = len(change.list_workers(number, states.READY))
        change.act(events.ReportCrashLoop(generation=number, failures=failures, ready=ready))
    elif wait := compute_backoff(settings, failures, jitter):
        change.change_generation(number, restarts=(*generation.restarts, change.now + wait))


def _is_stable(worker: Worker, settings: Settings, now: float) -> bool:
    return worker.ready_at is not None and now - worker.ready_at >= settings.stable_seconds


def _end_time(change: Change, worker: Worker, jitter: float) -> None:
    """Go on with *worker*, whose state has lasted as long as it may."""
    if worker.state == states.KILLED:
        change.move_worker(worker, "time is up")
        change.act(events.Abandon(worker=worker.id))
        return
    if worker.state == states.YIELDING:
        _go_on_yielding(change, worker)
        return
    change.kill(worker, "time is up")
    if worker.state == states.STARTING:
        seconds = change.generations[worker.generation].settings.ready_timeout
        reason = f"worker {worker.id} was not ready after {seconds:g} seconds"
        _lose(change, worker, _TIMED_OUT, reason, jitter)


def _go_on_yielding(change: Change, worker: Worker) -> None:
    """Have somebody look whether the socket of *worker* is empty, as long as that is bearable."""
    settings = change.generations[worker.generation].settings
    if change.now - worker.since > settings.yield_seconds + settings.grace_seconds:
        change.drain(worker)
        return
    change.change_worker(worker.id, deadline=change.now + _QUEUE_EVERY)
    change.act(events.CheckQueue(worker=worker.id))


def _make_due(change: Change, worker: Worker, reason: str) -> None:
    if worker.state == states.READY and not worker.due:
        change.change_worker(worker.id, due=reason)


def _shorten(most: float, settings: Settings, worker: Worker) -> float:
    """Return *most* less the worker's share of the jitter, so that not all are due at once."""
    return most * (1 - settings.recycle_jitter * worker.share)


# -- what follows from how things are now ---------------------------------------------------------


def _settle(change: Change) -> None:
    """Draw every conclusion, until there is nothing left to do but wait."""
    if change.state != states.STOPPING:
        reload.advance(change)
        if change.state == states.RUNNING and change.waiting:
            # One reload answers all who waited: it takes the code as it is now.
            waiting, change.waiting = change.waiting, ()
            reload.begin(change, tuple(one.ticket for one in waiting), waiting[-1].settings)
        for generation in tuple(change.generations.values()):
            _balance(change, generation)
        _give_up_if_nobody_is_left(change)
    for number in [one.number for one in change.generations.values()]:
        leaving = change.generations[number].state == states.LEAVING
        if leaving and not change.list_workers(number):
            change.move_generation(number, "empty")
            change.act(events.ForgetGeneration(generation=number))
    change.arm_timer()
    if change.state == states.STOPPING and not change.workers:
        change.move("empty")
        change.act(events.Finish(exit_status=change.exit_status))


def _balance(change: Change, generation: Generation) -> None:
    """Start and drain workers until there are as many as should be.

    A worker that is due is replaced by asking for one more: when that is ready there is one too
    many, and the one that is due is it. One at a time, and not while a reload replaces all.
    """
    if generation.state in (states.PAUSED, states.LEAVING):
        return
    target = generation.asked - generation.retired
    if generation.state == states.CANARY:
        target = generation.first
    ready = change.list_workers(generation.number, states.READY)
    starting = change.list_workers(generation.number, states.STARTING)
    ready = slots.rank(ready, generation.asked)
    while len(ready) > target:
        change.retire(ready.pop())
    for one in ready:
        if generation.settings.yield_seconds and one.slot >= generation.asked:
            _make_due(change, one, "its socket is one too many")
    replaces = generation.state == states.SERVING and change.state == states.RUNNING
    wanted = target + (1 if replaces and any(change.workers[one.id].due for one in ready) else 0)
    restarts = generation.restarts[: max(0, wanted - len(ready) - len(starting))]
    change.change_generation(generation.number, restarts=restarts)
    while starting and len(ready) + len(starting) > wanted:
        change.drain(starting.pop())
    if generation.state != states.DEGRADED:
        missing = wanted - len(ready) - len(starting) - len(restarts)
        _start(change, generation, missing, len(starting))


def _start(change: Change, generation: Generation, missing: int, starting: int) -> None:
    """Have so many more workers, beside those who are *starting* already."""
    workers = change.list_workers(generation.number)
    for worker in slots.list_recallable(workers, generation.asked)[: max(0, missing)]:
        change.move_worker(worker, "recall")
        missing -= 1
    at_once = generation.settings.starts_at_once
    if at_once and change.state == states.RELOADING and generation.state != states.SERVING:
        # Others serve meanwhile, and what a start takes of the processors it takes from them.
        missing = min(missing, at_once - starting)
    for _ in range(missing):
        change.start_worker(generation)


def _give_up_if_nobody_is_left(change: Change) -> None:
    serving = change.find_serving()
    if change.state != states.RUNNING or serving is None or change.list_workers(serving.number):
        return
    if serving.state == states.DEGRADED or serving.retired >= serving.asked:
        failed = _FAILED if serving.state == states.DEGRADED else 0
        _leave(change, "nobody left", serving.last_status or failed)


def _leave(change: Change, cause: str, exit_status: int) -> None:
    """Begin the end, and answer everybody who waits for something."""
    change.move(cause)
    change.exit_status = exit_status
    for generation in tuple(change.generations.values()):
        if generation.state != states.LEAVING:
            change.move_generation(generation.number, "failed" if cause == "failed" else "stop")
            change.discharge(generation.number)
    tickets = (*change.tickets, *(one.ticket for one in change.waiting))
    if tickets:
        reason = "the service was stopped"
        change.act(events.ReportReloadFailed(tickets=tickets, reason=reason))
    change.tickets, change.waiting = (), ()
