"""Every state of the table is really forked, and the guard must have known what came of it."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from guard.corpus import watching
from guard.corpus.registry import State, read_all

_STATES = read_all()


def _is_here(need: str) -> bool:
    if need == "openmp":
        return shutil.which("cc") is not None
    if need == "io_uring":
        return _can_make_a_ring()
    return importlib.util.find_spec(need) is not None


def _can_make_a_ring() -> bool:
    from guard.corpus.ring import Ring  # noqa: PLC0415 - its import asks for the C library

    try:
        Ring(1).close()
    except OSError:  # a kernel without, or a container that forbids it
        return False
    return True


def _play(state: State) -> None:
    missing = [need for need in state.needs.split() if not _is_here(need)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    played = watching.play(state.home, state.name)
    assert played.outcome in state.expected, played
    if played.outcome == "harmless":
        assert played.refused == state.lucky, f"a false refusal, or a known one less: {played}"
    elif played.outcome in {"hang", "crash"}:
        assert played.refused, f"a miss: {played}"
    else:
        assert played.refused != state.unseen, f"documented otherwise: {played}"


@pytest.mark.parametrize(
    "state", [state for state in _STATES if state.quick], ids=lambda state: state.name
)
def test_the_verdict_is_what_becomes_of_the_child(state: State) -> None:
    """A guard that is only believed is worth nothing: the fork is made, and watched."""
    _play(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    "state", [state for state in _STATES if not state.quick], ids=lambda state: state.name
)
def test_the_verdict_is_what_becomes_of_the_child_in_every_state(state: State) -> None:
    """The rest of the table; what a state needs is in corpus/requirements.txt."""
    _play(state)


def test_the_table_is_large_enough_to_mean_something() -> None:
    """Two percent of false refusals cannot be told from none in a short table."""
    assert len(_STATES) >= 100
    assert len({state.name for state in _STATES}) == len(_STATES)
    assert sum("harmless" in state.expected for state in _STATES) >= 50


def test_few_refusals_are_false() -> None:
    """Every one of them is a person who stops listening to the guard."""
    assert sum(state.lucky for state in _STATES) <= 0.02 * len(_STATES)


@pytest.mark.parametrize("state", _STATES, ids=lambda state: state.name)
def test_a_state_says_what_it_is(state: State) -> None:
    """The table is printed into the documents."""
    assert state.text.endswith(".")
    assert state.expected
