"""Who made what the guard finds (to be written: the watch)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.guard.hazard import Hazard


class Watch:
    def attribute(self, hazards: list[Hazard]) -> list[Hazard]:
        return hazards
