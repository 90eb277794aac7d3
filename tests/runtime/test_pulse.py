"""The pulse says for how long a loop has not turned, and costs it nothing while it waits."""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.runtime.pulse import AskedPulse, Pulse, PulsingSelector

if TYPE_CHECKING:
    from collections.abc import Callable

MOMENTS = st.floats(min_value=1e-3, max_value=1e9)


def test_a_loop_that_waits_or_does_not_run_is_not_stuck() -> None:
    """However long it has had nothing to do."""
    assert Pulse().stuck_seconds(1e9) == 0.0


@given(left_at=MOMENTS, now=MOMENTS)
def test_a_loop_is_stuck_since_it_left_its_wait(left_at: float, now: float) -> None:
    """Never less than nothing: the asking thread may have read the clock before the loop did."""
    pulse = Pulse()
    pulse.left_at = left_at
    assert pulse.stuck_seconds(now) == max(0.0, now - left_at)


def test_a_selector_notes_when_it_waits() -> None:
    """Seen from another thread, as the control thread does."""
    receiver, sender = os.pipe()
    pulse = Pulse()
    selector = PulsingSelector(pulse)
    try:
        selector.register(receiver, 1)
        assert selector.select(0) == []
        assert 0 < pulse.left_at <= monotonic()
        thread = threading.Thread(target=selector.select)
        thread.start()
        while pulse.left_at:
            pass
        os.write(sender, b"x")
        thread.join()
        assert pulse.left_at
    finally:
        selector.close()
        os.close(receiver)
        os.close(sender)
    assert not pulse.left_at


def test_a_loop_that_answers_is_not_stuck() -> None:
    """The answer may come at any moment while the question waits."""
    pulse = AskedPulse(lambda answer: answer(), patience=0)
    assert pulse.stuck_seconds(monotonic()) == 0.0


def test_a_loop_that_does_not_answer_is_stuck_since_the_first_question() -> None:
    """It is asked once, not again and again: a loop that is stuck for a day has one callback."""
    asked: list[Callable[[], None]] = []
    pulse = AskedPulse(asked.append, patience=0)
    first = monotonic()
    assert pulse.stuck_seconds(first) >= 0.0
    assert pulse.stuck_seconds(monotonic()) <= monotonic() - first
    assert len(asked) == 1
    asked[0]()
    assert not pulse.left_at


def test_a_closed_loop_is_not_stuck() -> None:
    """It says so when it is asked."""

    def refuse(_: object) -> None:
        message = "Event loop is closed"
        raise RuntimeError(message)

    assert AskedPulse(refuse, patience=0).stuck_seconds(monotonic()) == pytest.approx(0.0)
