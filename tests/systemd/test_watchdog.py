"""The watchdog is fed for a loop that turns, and for nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.systemd.watchdog import Feeder, read_watchdog

PID = 4711


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_PID": str(PID)}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "1"}, 0.0000005),
        ({"WATCHDOG_USEC": " 0x10"}, 0.000008),
    ],
)
def test_the_interval_is_half_of_what_the_manager_allows(
    environ: dict[str, str], seconds: float | None
) -> None:
    """So one feeding may be late; and a mismatched pid means that somebody else is watched."""
    assert read_watchdog(environ, PID) == seconds


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "", "WATCHDOG_PID": str(PID)},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "1.5"},
        {"WATCHDOG_USEC": str(2**64 - 1)},
        {"WATCHDOG_USEC": "1", "WATCHDOG_PID": ""},
        {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "x"},
        {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "0"},
    ],
)
def test_what_libsystemd_refuses_is_refused(environ: dict[str, str]) -> None:
    """A watchdog that is believed to be off kills the service half a minute later."""
    with pytest.raises(errors.ConfigError, match="WATCHDOG_"):
        read_watchdog(environ, PID)


class Look(NamedTuple):
    """One look of the feeding thread at the loop."""

    after: float
    turned: bool
    healthy: bool


_LOOKS = st.lists(
    st.builds(Look, st.floats(0.01, 3.0), st.booleans(), st.booleans()), min_size=1, max_size=60
)
INTERVAL = 1.0


def _watch(looks: list[Look]) -> list[tuple[float, float, bool, str]]:
    """Return (now, last turn, healthy, action) of each look."""
    feeder = Feeder(INTERVAL, 0.0)
    now, last_turn = 0.0, 0.0
    seen: list[tuple[float, float, bool, str]] = []
    for look in looks:
        now += look.after
        last_turn = now - look.after / 2 if look.turned else last_turn
        action = feeder.decide(now, last_turn, look.healthy)
        seen.append((now, last_turn, look.healthy, action))
    return seen


@given(_LOOKS)
def test_it_is_fed_only_after_a_new_turn_and_in_health(looks: list[Look]) -> None:
    """A thread that feeds by the clock gets this wrong: it feeds for a loop that is dead."""
    fed_for: set[float] = set()
    for _, last_turn, healthy, action in _watch(looks):
        if action == "feed":
            assert healthy
            assert last_turn not in fed_for
            fed_for.add(last_turn)


@given(_LOOKS)
def test_it_is_not_fed_more_often_than_asked(looks: list[Look]) -> None:
    """Each feeding wakes the manager."""
    fed = [now for now, _, _, action in _watch(looks) if action == "feed"]
    assert all(later - earlier >= INTERVAL for earlier, later in pairwise(fed))


@given(_LOOKS)
def test_a_standstill_is_told_once(looks: list[Look]) -> None:
    """The stacks are written down once, before the manager kills the service; then it is silent."""
    told_at: float | None = None
    for _, last_turn, _, action in _watch(looks):
        if action == "stuck":
            assert told_at != last_turn
            told_at = last_turn


def test_a_loop_that_turns_is_never_let_starve() -> None:
    """Looked at twice an interval, a healthy loop is fed within one and a half of them."""
    feeder = Feeder(INTERVAL, 0.0)
    fed = [0.0]
    for step in range(1, 200):
        now = step * INTERVAL / 2
        action = feeder.decide(now, now - 0.001)
        assert action in ("feed", "wait")
        if action == "feed":
            assert now - fed[-1] <= INTERVAL * 1.5
            fed.append(now)
    assert len(fed) > 90


def test_a_loop_that_stops_is_told_before_the_manager_acts() -> None:
    """The manager kills after two intervals; half of one is left to write the stacks down."""
    feeder = Feeder(INTERVAL, 0.0)
    actions = {step / 10: feeder.decide(step / 10, 0.25) for step in range(3, 40)}
    first = min(now for now, action in actions.items() if action == "stuck")
    assert 1.5 * INTERVAL <= first - 0.25 < 2 * INTERVAL
    assert [action for action in actions.values() if action != "wait"] == ["feed", "stuck"]


def test_an_unwell_program_is_not_fed_until_it_is_well() -> None:
    """A loop can turn while the program behind it is broken; only the program knows."""
    feeder = Feeder(INTERVAL, 0.0)
    assert feeder.decide(0.1, 0.1, healthy=True) == "feed"
    assert feeder.decide(1.2, 1.2, healthy=False) == "unwell"
    assert feeder.decide(1.7, 1.7, healthy=False) == "wait"
    assert feeder.decide(2.2, 2.2, healthy=True) == "feed"
    assert feeder.decide(3.3, 3.3, healthy=False) == "unwell"
