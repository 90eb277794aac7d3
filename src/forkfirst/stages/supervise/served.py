"""How much a worker has served; its supervisor is told now and then, and not of every request."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_REPORTS = 100
"""How many reports make a whole: so the limit is kept to one in a hundred."""


class Served:
    """A count that is reported each time that another hundredth of *most* is full.

    Without a lock: where many threads count at once, one in many may be lost, and it is a limit for
    programs that leak.
    """

    def __init__(self, most: int, report: Callable[[int], object]) -> None:
        self._each = max(1, most // _REPORTS)
        self._report = report
        self._total = 0
        self._due = self._each

    def add(self, count: int) -> None:
        """Count so many more."""
        self._total += count
        if self._total >= self._due:
            self._due = self._total + self._each
            self._report(self._total)
