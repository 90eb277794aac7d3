"""A successor under systemd: silent until it is the main process, for nobody would listen to it."""

from __future__ import annotations

from forkfirst.stages.managed import telling
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


def take_over(data: Mapping[str, Any]) -> Manager:
    """Return the manager of the predecessor, which follows a service that becomes another process.

    What it has for a line on the notification descriptor is said already.
    """
    manager = telling.Manager.take_over(data)
    manager.follows = True
    return manager
