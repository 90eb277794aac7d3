"""When to feed the service manager's watchdog: only while the loop turns, and the program is well.

A watchdog that a thread feeds by the clock proves that the thread lives. This one is fed only after
the loop has turned since the last time: the clock, the loop's turns and the program's own opinion
are arguments, and the answer is a word. It reads no clock and sends nothing.
"""

from __future__ import annotations

from forkfirst import errors
from forkfirst.systemd.integers import parse_integer, parse_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    Action = Literal["feed", "wait", "stuck", "unwell"]

VARIABLES = ("WATCHDOG_USEC", "WATCHDOG_PID")
_STUCK_AFTER = 1.5  # intervals, that is three quarters of what the manager allows
_MICROSECONDS = 1_000_000


def read_watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how many seconds should pass between two feedings: half of what the manager allows.

    None if there is no watchdog, or it is another process's. Removes no variable.

    Raises:
        ConfigError: A variable is malformed.

    Source: sd_watchdog_enabled(3).
    """
    text = environ.get("WATCHDOG_USEC")
    if text is None:
        return None
    microseconds = parse_integer(text, 1, 2**64 - 2)
    if microseconds is None:
        message = f"cannot use the watchdog: WATCHDOG_USEC={text!r} is not a number of microseconds"
        raise errors.ConfigError(message)
    text = environ.get("WATCHDOG_PID")
    if text is not None:
        addressee = parse_pid(text)
        if addressee is None:
            message = f"cannot use the watchdog: WATCHDOG_PID={text!r} is not a process id"
            raise errors.ConfigError(message)
        if addressee != pid:
            return None
    return microseconds / 2 / _MICROSECONDS


class Feeder:
    """Decides at each look whether to feed.

    All times are seconds on one clock of the caller's. Look at least twice in an interval.
    """

    def __init__(self, interval: float, now: float) -> None:
        """Begin at *now*, with *interval* seconds between feedings (see `read_watchdog`)."""
        self._interval = interval
        self._fed_at = now - interval  # so the first turn feeds
        self._turn_fed = float("-inf")
        self._turn_seen = now
        self._told: Action | None = None

    def decide(self, now: float, last_turn: float, healthy: bool = True) -> Action:  # noqa: FBT001, FBT002 - the three facts, in the order they are gathered
        """Say what to do at *now*, when the loop turned last at *last_turn*.

        Returns:
            "feed": send WATCHDOG=1 (`Notifier.watchdog`).
            "wait": nothing, look again later.
            "stuck": the loop has stood still for so long that the manager will soon kill the
                service. Said once a standstill: now is the time to write the stacks down.
            "unwell": the program says that it is not well. Said once, until it is well again.
        """
        if last_turn > self._turn_seen:
            self._turn_seen = last_turn
            if self._told == "stuck":
                self._told = None
        if now - self._turn_seen >= self._interval * _STUCK_AFTER:
            return self._tell("stuck")
        if not healthy:
            return self._tell("unwell")
        if self._told == "unwell":
            self._told = None
        due = now - self._fed_at >= self._interval
        if not due or last_turn <= self._turn_fed:
            return "wait"
        self._fed_at, self._turn_fed = now, last_turn
        return "feed"

    def _tell(self, action: Action) -> Action:
        if self._told == action:
            return "wait"
        self._told = action
        return action
