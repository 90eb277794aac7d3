"""The sockets of listeners that have one for each worker, and who is dealt connections.

All of them are the supervisor's, so nothing that waits in a queue is lost with a worker: whoever
has its slot next takes it. Which slots are served, and which are needed at all, follows from the
fleet (`plan.fleet.slots`) after each event; here it is only carried out.
"""

from __future__ import annotations

import os

from forkfirst.plan.fleet import slots
from forkfirst.stages.taking import NO_DESCRIPTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forkfirst.stages.supervise.kit import Kit
    from forkfirst.stages.supervise.loop import Supervisor

_AT_ITS_END = ("stopping", "finished")


class Spread:
    """Every listener of the service that is spread.

    Attributes:
        sockets: Those of each, in the order of their slots, by the first of them; that one is also
            the descriptor that a kit has for the listener.
        full: Of which listeners no more sockets are opened, because that has failed once. A worker
            without one of its own shares another's, and so that must stay as it is.
    """

    def __init__(self, others: Mapping[int, Iterable[int]], full: Iterable[int] = ()) -> None:
        self.sockets = {first: [first, *more] for first, more in others.items()}
        self._steered: dict[int, tuple[int, ...]] = {}
        self.full = set(full)

    def add(self, first: int, others: Iterable[int]) -> None:
        """Add a listener, of a reload."""
        self.sockets[first] = [first, *others]

    def list_descriptors(self) -> list[int]:
        """Return every socket."""
        return [fd for several in self.sockets.values() for fd in several]

    def describe(self, kit: Kit) -> list[int]:
        """Return how many sockets each listener of *kit* has, for `status`."""
        return [len(self.sockets.get(fd, (fd,))) for _, fd in kit.listeners]

    # -- for a child -------------------------------------------------------------------------------

    def list_listeners(self, kit: Kit, slot: int) -> tuple[tuple[str, int], ...]:
        """Return name and socket of each listener that a worker with *slot* and *kit* has."""
        return tuple((name, self._find(fd, slot)) for name, fd in kit.listeners)

    def list_shared(self, kit: Kit) -> tuple[tuple[str, int], ...]:
        """Return the same for a template: what is spread has no descriptor there."""
        return tuple(
            (name, NO_DESCRIPTOR if fd in self.sockets else fd) for name, fd in kit.listeners
        )

    def list_own(self, kit: Kit, slot: int) -> tuple[int, ...]:
        """Return what `list_shared` leaves out, for the worker with *slot*."""
        return tuple(self._find(fd, slot) for _, fd in kit.listeners if fd in self.sockets)

    def _find(self, fd: int, slot: int) -> int:
        several = self.sockets.get(fd, (fd,))
        return several[slot % len(several)]

    # -- what follows from the fleet ---------------------------------------------------------------

    def make_room(self, supervisor: Supervisor, kit: Kit, slot: int) -> None:
        """See to it that each listener of *kit* has a socket for *slot*.

        Where this process may not open one, as on a low port once privileges were given up, the
        slots beyond share those that there are.
        """
        for name, fd in kit.listeners:
            several = self.sockets.get(fd)
            while several is not None and len(several) <= slot and fd not in self.full:
                from forkfirst.unix import reuseport  # noqa: PLC0415 - few services are spread

                try:
                    several.append(reuseport.join(fd))
                except OSError as error:
                    self.full.add(fd)
                    supervisor.say(
                        f"cannot open another socket for {name}: {error.strerror}; "
                        f"more workers than {len(several)} share those that there are"
                    )

    def follow(self, supervisor: Supervisor) -> None:
        """Deal connections out to those who accept, and end the sockets that nobody needs."""
        if not self.sockets:
            return
        if supervisor.fleet.state in _AT_ITS_END:
            for first in self.sockets:  # the one that a manager keeps for the next start, maybe
                self._steer(supervisor, first, (0,))
            return
        served, needed = slots.list_open(supervisor.fleet), slots.count_needed(supervisor.fleet)
        for first, several in self.sockets.items():
            self._steer(supervisor, first, served)
            while len(several) > needed and supervisor.upgrade is None:
                self._end(supervisor, several.pop())

    def count_waiting(self, kit: Kit, slot: int) -> int:
        """Return how many connections wait for who has *slot*, and for nobody else."""
        from forkfirst.unix import reuseport  # noqa: PLC0415 - as above

        return sum(
            reuseport.count_waiting(self._find(fd, slot))
            for _, fd in kit.listeners
            if fd in self.sockets and slot % len(self.sockets[fd]) not in self._steered.get(fd, ())
        )

    def forget(self, used: Iterable[int]) -> None:
        """Close the sockets of each listener whose first is closed by now, being not in *used*."""
        for first in self.sockets.keys() - frozenset(used):
            for fd in self.sockets.pop(first)[1:]:
                os.close(fd)
            self._steered.pop(first, None)
            self.full.discard(first)

    def _steer(self, supervisor: Supervisor, first: int, served: Iterable[int]) -> None:
        count = len(self.sockets[first])
        places = tuple(sorted({slot % count for slot in served}))
        if self._steered.get(first) == places:
            return
        from forkfirst.unix import reuseport  # noqa: PLC0415 - as above

        try:
            reuseport.steer(first, places)
        except OSError as error:
            supervisor.say(f"cannot choose who is dealt connections: {error.strerror}")
        self._steered[first] = places

    def _end(self, supervisor: Supervisor, fd: int) -> None:
        from forkfirst.unix import reuseport  # noqa: PLC0415 - as above

        waiting = reuseport.count_waiting(fd)
        if waiting:  # a handshake that took longer than the second that is waited for it
            supervisor.say(f"{waiting} connections came too late to a socket, and are reset")
        reuseport.end(fd)
