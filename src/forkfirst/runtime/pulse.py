"""Whether the runtime turns, and if not, for how long it has not: without a single wake-up.

A loop that waits for its descriptors does nothing, and that is health. A loop that left its wait
and has not come back runs one callback that does not end: it is stuck. So the moment of leaving is
noted at every turn, and the control thread subtracts. No timer, no beat: an idle service stays
idle.
"""

from __future__ import annotations

from contextlib import suppress
from selectors import DefaultSelector
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from selectors import SelectorKey


class Pulse:
    """The moment a runtime last left its wait.

    Attributes:
        left_at: That moment by `time.monotonic`, or 0.0 while it waits or does not run.
    """

    __slots__ = ("left_at",)

    def __init__(self) -> None:
        self.left_at: float = 0.0

    def stuck_seconds(self, now: float) -> float:
        """Return for how long the runtime has not turned, 0.0 if it waits.

        Args:
            now: The present, by `time.monotonic`.
        """
        left_at = self.left_at  # read once: the loop goes on meanwhile
        return max(0.0, now - left_at) if left_at else 0.0


class PulsingSelector(DefaultSelector):
    """The platform's best selector, which notes in *pulse* when it is entered and left."""

    def __init__(self, pulse: Pulse) -> None:
        super().__init__()
        self._pulse = pulse
        self._wait = super().select  # bound once: a third of the cost of a turn's bookkeeping
        self._paused: list[SelectorKey] = []

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait as the base class does."""
        pulse = self._pulse
        pulse.left_at = 0.0
        ready = self._wait(timeout)
        pulse.left_at = monotonic()
        return ready

    def pause(self, descriptors: Iterable[int]) -> None:
        """Report nothing of *descriptors* until `resume`; who registered them need not know.

        For the loop's own thread; a signal handler in it may.
        """
        for fd in descriptors:
            if fd in self.get_map():
                self._paused.append(self.unregister(fd))

    def resume(self) -> None:
        """Report again what was paused, unless it was closed or registered anew meanwhile."""
        while self._paused:
            key = self._paused.pop()
            with suppress(OSError, KeyError, ValueError):
                self.register(key.fileobj, key.events, key.data)

    def close(self) -> None:
        """Close the selector; a loop that is gone is not stuck."""
        self._pulse.left_at = 0.0
        del self._wait  # it is a reference to this object
        super().close()


class AskedPulse(Pulse):
    """The pulse of a loop that has no hook: uvloop's. The loop is asked when somebody asks.

    A question is a callback handed to the loop. While one is unanswered, the loop is stuck since it
    was put, so a time counts from the first question, not from the true beginning; whoever asks
    regularly, as a watchdog does, is exact to its own interval. The price of exactness would be a
    wake-up every second, for ever.
    """

    __slots__ = ("_answered", "_ask", "_patience")

    def __init__(self, ask: Callable[[Callable[[], None]], object], patience: float = 0.05) -> None:
        super().__init__()
        self._ask = ask
        self._patience = patience
        from threading import Event  # noqa: PLC0415 - asyncio has it loaded

        self._answered = Event()

    def stuck_seconds(self, now: float) -> float:
        """Ask the loop, and wait a moment (50 ms) for its answer. Not for the loop's own thread."""
        if not self.left_at:
            self._answered.clear()
            self.left_at = now
            try:
                self._ask(self._answer)
            except RuntimeError:  # the loop is closed
                self.left_at = 0.0
                return 0.0
        self._answered.wait(self._patience)
        return super().stuck_seconds(monotonic())

    def _answer(self) -> None:
        self.left_at = 0.0
        self._answered.set()
