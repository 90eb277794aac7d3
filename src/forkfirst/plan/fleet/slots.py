"""Which worker accepts from which socket, where a listener has one for each of them (`reuseport`).

A slot is a number from 0 on, and the place of a socket. A worker has a slot from its start until
its end, and may share it: with its successor in a reload, and with whoever replaces it. A socket
whose slot nobody serves is dealt no connections, and a worker that was the last to serve one first
empties it. Where no listener is spread, slots mean nothing.
"""

from __future__ import annotations

from forkfirst.plan.fleet import state as states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from forkfirst.plan.fleet.state import Fleet, Worker

_STAYS = (states.STARTING, states.READY, states.PAUSED)


def choose_slot(workers: Iterable[Worker], asked: int) -> int:
    """Return the slot of the next worker beside *workers*, its generation's, of *asked* slots.

    It is the lowest that is free, or else that of a worker which is to be replaced.
    """
    staying = [one for one in workers if one.state in _STAYS]
    served = {one.slot for one in staying}
    for good in (served, {one.slot for one in staying if not one.due}):
        free = [slot for slot in range(asked) if slot not in good]
        if free:
            return free[0]
    return 0


def rank(ready: Iterable[Worker], asked: int) -> list[Worker]:
    """Return *ready* in the order in which they stay: the last is the first to leave."""
    ready = tuple(ready)
    kept = {one.slot for one in ready if not one.due}
    return sorted(
        ready, key=lambda one: (one.slot >= asked, bool(one.due), one.slot in kept, one.id)
    )


def is_alone(worker: Worker, workers: Iterable[Worker]) -> bool:
    """Return whether nobody else of *workers* accepts from the socket of *worker*."""
    return not any(
        one.slot == worker.slot and one.state == states.READY and one.id != worker.id
        for one in workers
    )


def list_recallable(workers: Iterable[Worker], asked: int) -> list[Worker]:
    """Return who was leaving because of a scale that has been taken back since."""
    workers = tuple(workers)
    taken = {one.slot for one in workers if one.state in _STAYS}
    return [
        one
        for one in workers
        if one.state == states.YIELDING
        and not one.due
        and one.slot < asked
        and one.slot not in taken
    ]


# -- for who has the sockets -----------------------------------------------------------------------


def find_slot(fleet: Fleet, worker: int) -> int:
    """Return the slot of the worker with that number; 0 if it is gone."""
    return next((one.slot for one in fleet.workers if one.id == worker), 0)


def list_open(fleet: Fleet) -> tuple[int, ...]:
    """Return the slots that are to be dealt connections: those with somebody who accepts.

    If there is nobody at all, all of them: their queues are where to wait then.
    """
    served = sorted({one.slot for one in fleet.workers if one.state == states.READY})
    return tuple(served or range(_count_asked(fleet)))


def count_needed(fleet: Fleet) -> int:
    """Return how many slots are asked for, or still in use."""
    return max([_count_asked(fleet), *(one.slot + 1 for one in fleet.workers)])


def _count_asked(fleet: Fleet) -> int:
    asked = [one.asked for one in fleet.generations if one.state != states.LEAVING]
    return max(asked, default=1)
