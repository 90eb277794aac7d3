"""Starting a worker by a fork of the supervisor, and what every way to start one needs."""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.plan.fleet import events, slots
from forkfirst.stages.supervise import worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from forkfirst.stages.supervise.kit import Kit
    from forkfirst.stages.supervise.loop import Supervisor


def throw_dice() -> float:
    """Return chance, in [0, 1). Not from `random`, whose state the workers would share."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def find_kit(supervisor: Supervisor, generation: int) -> Kit:
    """Return what *generation* has; one not seen before has what the reload in progress brought."""
    if generation not in supervisor.kits:
        tickets = [one for one in supervisor.fleet.tickets if one in supervisor.tickets]
        kit = supervisor.tickets[tickets[-1]].kit if tickets else supervisor.first_kit
        supervisor.kits[generation] = kit
    return supervisor.kits[generation]


def list_foreign(supervisor: Supervisor, listeners: Iterable[tuple[str, int]]) -> tuple[int, ...]:
    """Return each descriptor of the supervisor that a child with *listeners* must not have."""
    mine = {fd for _, fd in listeners}
    others = {fd for one in supervisor.kits.values() for _, fd in one.listeners}
    others.update(fd for one in supervisor.tickets.values() for _, fd in one.kit.listeners)
    others.update(supervisor.spread.list_descriptors())
    return (*supervisor.own_descriptors(), *(others - mine))


def fork_plainly(supervisor: Supervisor, number: int, generation: int) -> bool:
    """Fork the worker from here; return whether that went well. If not, the fleet knows of it."""
    kit = find_kit(supervisor, generation)
    slot = slots.find_slot(supervisor.fleet, number)
    supervisor.spread.make_room(supervisor, kit, slot)
    listeners = supervisor.spread.list_listeners(kit, slot)
    foreign = list_foreign(supervisor, listeners)
    try:
        supervisor.processes[number] = worker.fork_worker(
            supervisor.start, kit, number, generation, foreign, listeners
        )
    except (OSError, errors.UnsafeFork) as error:
        report_unstarted(supervisor, number, error)
        return False
    return True


def report_unstarted(supervisor: Supervisor, number: int, error: Exception) -> None:
    """Say that there will be no worker *number*, and tell the fleet."""
    supervisor.say(f"cannot start worker {number}: {error}")
    status = errors.SystemRefusedError.exit_status
    supervisor.happen(events.Exited(worker=number, status=status, jitter=throw_dice()))
