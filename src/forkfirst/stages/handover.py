"""The plan and the descriptors, from the launcher to the process that waits to be the service."""

from __future__ import annotations

import os

from forkfirst.plan import preparation
from forkfirst.stages import packing
from forkfirst.stages.start import Start
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import held_pidfile, passage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.stages.fork_first import Forked
    from forkfirst.stages.taking import Table


def hand_over(start: Start) -> None:
    """Send the service its plan, and what was opened for it.

    Raises:
        OSError: The kernel refused.
    """
    forked = start.forked
    assert forked is not None  # noqa: S101 - only a plan with a fork has this step
    # Of each listener its name, and how many more sockets it has; None where it is not spread.
    names = [
        (name, len(start.spread[fd]) if fd in start.spread else None)
        for name, fd in start.listeners
    ]
    descriptors = start.descriptors()
    given = [fd for fd in descriptors if fd != NO_DESCRIPTOR]
    holes = [fd == NO_DESCRIPTOR for fd in descriptors]
    again = (start.command, start.directory)
    message = (start.plan, names, start.paths, start.log_offset, holes, again)
    try:  # noqa: SIM105 - contextlib is not loaded before a fork
        passage.send(forked.sender, packing.pack(message), given)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it is gone, and why is on its way through the report
    os.close(forked.sender)
    forked.sender = NO_DESCRIPTOR


def take_over(forked: Forked) -> Start | None:
    """Wait for the plan; None if the launcher gave up before it had one."""
    received = passage.receive(forked.receiver)
    if received is None:
        return None
    data, descriptors = received
    # Ours alone has written to it: the other end of this pair was never anybody else's.
    plan, names, paths, log_offset, holes, (command, directory) = packing.unpack(data)
    start = Start(plan, command=command, directory=directory, program=forked.program)
    taken = iter(descriptors)
    lock, start.log, start.control, *sockets = (
        NO_DESCRIPTOR if hole else next(taken) for hole in holes
    )
    start.pid_file = held_pidfile.PidFile(lock, plan.places.pid_file)
    rest = iter(sockets[len(names) :])
    for (name, more), fd in zip(names, sockets, strict=False):
        start.listeners.append((name, fd))
        if more is not None:
            start.spread[fd] = [next(rest) for _ in range(more)]
    start.paths = paths
    start.log_offset = log_offset
    start.report_to = forked.report_to
    return start


TABLE: Table = {preparation.HandOver: lambda _, start: hand_over(start)}
