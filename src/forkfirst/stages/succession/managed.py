"""A successor under systemd: silent until it is the main process, for nobody would listen to it."""

from __future__ import annotations

import os

from forkfirst.stages.managed import keeping, telling
from forkfirst.stages.succession import successor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forkfirst.stages.answers import Facts
    from forkfirst.stages.managed.telling import Manager
    from forkfirst.stages.start import Start


class ManagedTelling(successor.Hearing, telling.ManagedTelling):
    """What such a successor tells: its predecessor first, and its manager once that listens."""

    def __init__(
        self, start: Start, facts: Facts, manager: Manager, own: successor.Successor
    ) -> None:
        super().__init__(start, facts, manager)
        self.successor = own
        self._notifier, manager.notifier = manager.notifier, None
        self._unsaid: list[tuple[str, int | None]] = []

    def speak(self) -> None:
        """Tell the manager from now on, and first what is to be kept, and what is not any more."""
        self._manager.notifier = self._notifier
        if self._facts.status:
            super().status(self._facts.status)
        for name, fd in self._unsaid:
            self._say(name, fd)
        self._unsaid.clear()
        keeping.keep_listeners(self._start, self._start.plan, self._start.listeners)

    def _say(self, name: str, fd: int | None) -> None:
        if fd is None:
            self._manager.tell(lambda notifier: notifier.remove_stored(name))
        else:
            self._manager.tell(lambda notifier: notifier.store([fd], name))

    def keep(self, fd: int, name: str) -> bool:
        """Have the manager keep *fd*, as soon as it listens."""
        if self._manager.notifier is not None:
            return super().keep(fd, name)
        telling.check_name(name)
        self.kept.append((name, os.dup(fd)))
        self._unsaid.append(self.kept[-1])
        return True

    def forget(self, name: str) -> bool:
        """Have the manager close what it keeps as *name*, as soon as it listens."""
        is_said = super().forget(name)
        if not is_said:
            self._unsaid = [one for one in self._unsaid if one[0] != name]
            self._unsaid.append((name, None))
        return True


def take_over(data: Mapping[str, Any]) -> Manager:
    """Return the manager of the predecessor, which follows a service that becomes another process.

    What it has for a line on the notification descriptor is said already.
    """
    manager = telling.Manager.take_over(data)
    manager.follows = True
    return manager
