"""A reload: a new generation beside the serving one, then instead of it, or not at all.

begin → (canary) → starting → serving; the old one leaves, or is paused until it is final
      ↘ fail                      ↘ roll back
"""

from __future__ import annotations

from forkfirst.plan.fleet import events, slots
from forkfirst.plan.fleet import state as states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.fleet.change import Change
    from forkfirst.plan.fleet.state import Generation, Settings

_PERCENT = 100


def begin(change: Change, tickets: tuple[str, ...], settings: Settings | None) -> None:
    """Begin a reload for those who hold *tickets*; the fleet must be running."""
    serving = change.find_serving()
    if serving is None:  # cannot be while running; said for who reads, and for the type checker
        return
    asked = serving.asked if settings is None else max(1, settings.workers)
    settings = serving.settings if settings is None else settings
    change.move("reload")
    change.tickets = tickets
    if settings.canary > 0:
        first = max(1, min(asked, -int(-asked * settings.canary // _PERCENT)))
        change.add_generation(settings, asked, states.CANARY, first)
    else:
        change.add_generation(settings, asked, states.STARTING)


def fail(change: Change, generation: Generation, reason: str, worker: int | None = None) -> None:
    """Give up *generation*, which does not serve yet; the serving one never noticed."""
    change.move_generation(generation.number, "failed")
    change.discharge(generation.number)
    change.move("failed")
    _answer_failure(change, reason, worker)


def advance(change: Change) -> None:
    """Take the new generation as far as its workers are."""
    new = change.find_generation(states.CANARY)
    if new is not None:
        ready = change.list_workers(new.number, states.READY)
        if len(ready) >= new.first and all(one.healthy for one in ready):
            change.move_generation(new.number, "healthy")
        elif len(ready) >= new.first and new.until is None:
            until = change.now + new.settings.health_timeout
            change.change_generation(new.number, until=until)
    new = change.find_generation(states.STARTING)
    if new is None or len(change.list_workers(new.number, states.READY)) < new.asked:
        return
    old = change.find_serving()
    change.move_generation(new.number, "all ready")
    if old is None:
        change.move("all ready")
        change.act(events.ReportReady())
    elif new.settings.commit_window > 0:
        _put_aside(change, old, new)
    else:
        _make_final(change, old, new)


def _put_aside(change: Change, old: Generation, new: Generation) -> None:
    """Pause *old*, so that it can come back while *new* is on probation."""
    until = change.now + new.settings.commit_window
    change.move("new one serves")
    change.move_generation(old.number, "replaced, may return", until=until, restarts=())
    for worker in change.list_workers(old.number):
        alone = slots.is_alone(worker, change.workers.values())
        if worker.state == states.READY and old.settings.yield_seconds and alone:
            change.retire(worker)  # its socket is one that the new generation does not have
        elif worker.state == states.READY:
            change.move_worker(worker, "pause")
            change.act(events.Pause(worker=worker.id))
        elif worker.state in (states.STARTING, states.HUNG):
            change.drain(worker)
    for worker in change.list_workers(new.number, states.READY):
        change.act(events.CheckHealth(worker=worker.id))


def commit(change: Change) -> None:
    """End the probation well: the paused generation goes."""
    old, new = change.find_generation(states.PAUSED), change.find_serving()
    if old is not None and new is not None:
        _make_final(change, old, new)


def _make_final(change: Change, old: Generation, new: Generation) -> None:
    change.move_generation(old.number, "replaced")
    change.discharge(old.number)
    change.move("committed")
    change.act(events.ReportReloaded(tickets=change.tickets, generation=new.number))
    change.tickets = ()


def can_roll_back(change: Change) -> bool:
    """Tell whether somebody is left to come back; if not, the new generation is all there is."""
    old = change.find_generation(states.PAUSED)
    return old is not None and bool(change.list_workers(old.number, states.PAUSED))


def roll_back(change: Change, reason: str, worker: int | None = None) -> None:
    """End the probation badly: the paused generation serves again, then the new one goes."""
    old, new = change.find_generation(states.PAUSED), change.find_serving()
    if old is None or new is None:
        return
    change.move_generation(new.number, "rolled back")
    change.move_generation(old.number, "called back", failures=0, retired=0)
    for paused in change.list_workers(old.number, states.PAUSED):
        change.move_worker(paused, "resume")
        change.act(events.Resume(worker=paused.id))
    change.discharge(new.number)
    change.move("rolled back")
    _answer_failure(change, reason, worker)


def _answer_failure(change: Change, reason: str, worker: int | None) -> None:
    change.act(events.ReportReloadFailed(tickets=change.tickets, reason=reason, worker=worker))
    change.tickets = ()
