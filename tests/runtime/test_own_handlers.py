"""A program that handles SIGTERM itself stays in charge, and is bounded all the same."""

from __future__ import annotations

import signal

import pytest

from support.runtime_child import PROGRAMS, Flavour, start_program

FLAVOURS = (Flavour("asyncio_", "asyncio"), Flavour("uvloop_", "asyncio"))


@pytest.fixture(params=FLAVOURS, ids=str)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each loop that has `add_signal_handler`."""
    found: Flavour = request.param
    return found


@pytest.mark.parametrize("program", ["through_the_loop", "behind_its_back"])
def test_its_handler_is_called_and_it_is_not_cancelled(flavour: Flavour, program: str) -> None:
    """It drains as it would without us; and the manager still hears that it stops."""
    with start_program(flavour, f"{PROGRAMS / 'handlers.py'}:{program}") as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert "stopping" in ended.words
    assert "drained" in ended.words
    assert "cancelled" not in ended.words
    assert (ended.status, ended.err) == (0, "")


def test_it_can_give_its_handler_back(flavour: Flavour) -> None:
    """The loop answers as its documentation says: True, and then False."""
    with start_program(flavour, f"{PROGRAMS / 'handlers.py'}:through_the_loop") as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    removed = [one for one in ended.told if one["what"] == "removed"]
    assert removed == [{"what": "removed", "first": True}, {"what": "removed", "again": False}]


def test_the_grace_period_bounds_it(flavour: Flavour) -> None:
    """A server that waits for its last request for ever is the commonest stuck stop."""
    place = f"{PROGRAMS / 'handlers.py'}:without_end"
    with start_program(flavour, place, grace=0.1) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert {"stopping", "own handler", "cleaned up"} <= set(ended.words)
    assert ended.status == 0
    assert "the grace period of 0.1 s ran out" in ended.err


def test_other_signals_are_the_programs(flavour: Flavour) -> None:
    """And when it lets go of the last one, the stop signals still wake the loop."""
    with start_program(flavour, f"{PROGRAMS / 'handlers.py'}:another_signal") as child:
        child.wait_for("ready")
        child.signal(signal.SIGHUP)
        assert child.wait_for("reloaded")["removed"] is True
        child.signal(signal.SIGTERM)
        assert child.finish().status == 0
