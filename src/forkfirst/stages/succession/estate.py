"""What a successor is handed: the plan, the descriptors, and what it must know to be the service.

The two may be of different versions of forkfirst, for the successor is a fresh interpreter. So what
is passed is plain: texts, numbers and tuples. The plan alone is not; the predecessor passes it as
it came, and the successor's own code reads it.

Then a word in each direction decides:

| word        | from        | meaning                                   |
|-------------|-------------|-------------------------------------------|
| `ready`     | successor   | the program does its work                 |
| `take over` | predecessor | be the service                            |
| `taken`     | successor   | the pid file has my pid, and I answer     |
| `speak`     | predecessor | the manager listens to you by now         |
| `stop`      | predecessor | the service is to stop, and you with it   |
| `show`      | predecessor | write where you wait; answered by `shown` |

Until `taken` the predecessor is the service, and whatever becomes of the successor changes nothing.
A predecessor that is killed before leaves the service to its successor: that has all it needs.
"""

from __future__ import annotations

import os

from forkfirst.plan.host import Identity
from forkfirst.plan.places import Places
from forkfirst.stages import packing, reload
from forkfirst.stages.start import Start
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import held_pidfile, passage
from forkfirst.values import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Estate(Value):
    """What a successor has received, and may use once it is the service.

    Attributes:
        start: The start that its program belongs to. It has no lock, no control socket and no
            paths: to tidy it up removes nothing.
        lock: The descriptor that holds the lock of the service, or `NO_DESCRIPTOR`.
        control: The descriptor of the control socket, or `NO_DESCRIPTOR`.
        answer: Where whoever asked for the reload waits.
        paths: Sockets that are the service's to remove, as `Start.paths`.
        kept: Those of them that it still has.
        has_log: Whether descriptors 1 and 2 are a log file of its own.
        predecessor: The pid of whom it replaces.
        drain_seconds: How long that one may take to leave.
        manager: Whom to tell, as `Manager.take_over` takes it; or None.
    """

    start: Start
    lock: int
    control: int
    answer: int
    paths: tuple[tuple[str, int, int], ...]
    kept: frozenset[str]
    has_log: bool
    predecessor: int
    drain_seconds: float
    manager: dict[str, Any] | None


def hand_over(  # noqa: PLR0913 - each goes over in a place of its own
    fd: int,
    start: Start,
    *,
    plan: str,
    listeners: Sequence[tuple[str, int]],
    paths: Sequence[tuple[str, int, int]],
    kept: frozenset[str],
    answer: int,
) -> None:
    """Send through *fd* what a successor of *start* needs.

    Raises:
        BrokenPipeError: It has ended already.
    """
    facts, manager = start.facts, start.manager
    service = start.plan.service
    outside = facts.context.outside if facts is not None and facts.context is not None else None
    stored = [] if outside is None else outside.kept
    lock = start.pid_file.fd if start.pid_file is not None else NO_DESCRIPTOR
    descriptors = [lock, start.control, answer, *(one for _, one in [*listeners, *stored])]
    message = {
        "plan": plan,
        "mode": start.plan.mode,
        "places": _to_fields(start.plan.places),
        "identity": None if start.plan.identity is None else _to_fields(start.plan.identity),
        "again": (start.command, start.directory),
        "control_name": start.control_name,
        "names": [name for name, _ in listeners],
        "stored": [name for name, _ in stored],
        "holes": [one == NO_DESCRIPTOR for one in descriptors],
        "paths": tuple(paths),
        "kept": kept,
        "held": start.held_outside,
        "adopted": [fd in start.adopted for _, fd in listeners],
        "has_log": facts is not None and facts.log is not None,
        "predecessor": (os.getpid(), service.grace_seconds),
        "manager": None if manager is None else manager.hand_over(),
    }
    passage.send(fd, packing.pack(message), [one for one in descriptors if one != NO_DESCRIPTOR])


def receive(fd: int) -> Estate | None:
    """Wait for what `hand_over` sends; None if the predecessor is gone without it.

    Raises:
        ForkfirstError: The plan cannot be read.
    """
    received = passage.receive(fd)
    if received is None:
        return None
    # Only the predecessor has written to it: its end of this pair was never anybody else's.
    message: dict[str, Any] = packing.unpack(received[0])
    taken = iter(received[1])
    lock, control, answer, *others = (
        NO_DESCRIPTOR if hole else next(taken) for hole in message["holes"]
    )
    identity = message["identity"]
    plan = replace(
        reload.decode(message["plan"]),
        mode=message["mode"],
        places=Places(**message["places"]),
        identity=None if identity is None else Identity(**identity),
    )
    command, directory = message["again"]
    start = Start(plan, command=command, directory=directory)
    start.control_name = message["control_name"]
    names = message["names"]
    start.listeners = list(zip(names, others[: len(names)], strict=True))
    start.stored = list(zip(message["stored"], others[len(names) :], strict=True))
    start.held_outside = message["held"]
    adopted = message.get("adopted", [False] * len(names))  # of a version that did not tell them
    start.adopted = {fd for (_, fd), is_so in zip(start.listeners, adopted, strict=True) if is_so}
    predecessor, drain_seconds = message["predecessor"]
    return Estate(
        start=start,
        lock=lock,
        control=control,
        answer=answer,
        paths=message["paths"],
        kept=message["kept"],
        has_log=message["has_log"],
        predecessor=predecessor,
        drain_seconds=drain_seconds,
        manager=message["manager"],
    )


def pid_file_of(estate: Estate) -> held_pidfile.PidFile | None:
    """Return the lock as an object of this process; None where the service has none."""
    if estate.lock == NO_DESCRIPTOR:
        return None
    return held_pidfile.PidFile(estate.lock, estate.start.plan.places.pid_file)


def _to_fields(value: Value) -> dict[str, Any]:
    return dict(zip(type(value).__fields__, value, strict=True))
