"""The names under which a manager keeps our listeners: they say all, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.plan.keeping import is_reserved, make_name, read_name
from forkfirst.systemd.notify import check_name

_numbers = st.integers(0, 2**64 - 1)


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    identity=st.none() | st.tuples(_numbers, _numbers),
)
def test_a_name_is_read_back_as_what_it_was_made_of(
    text: str, identity: tuple[int, int] | None
) -> None:
    """Whatever a path may contain; and systemd takes each name that is made."""
    name = make_name(text, identity)
    if name:
        assert check_name(name) == name
        assert is_reserved(name)
        assert read_name(name) == (text, identity)


@given(st.text(max_size=30).map(lambda rest: f"forkfirst/{rest}") | st.text(max_size=30))
def test_what_is_read_is_what_would_be_made(name: str) -> None:
    """Else two names could mean one listener, and one of them would never be removed."""
    found = read_name(name)
    assert found is None or make_name(*found) == name


def test_a_name_is_read_by_people_too() -> None:
    """`systemd-analyze fdstore` shows it."""
    assert make_name("web=127.0.0.1:8000") == "forkfirst/web=127.0.0.1%3A8000"
    assert make_name("unix:/run/a", (12, 34)) == "forkfirst/unix%3A/run/a#12.34"


@pytest.mark.parametrize("name", ["web", "forkfirst/a%", "forkfirst/a%GG", "forkfirst/a#1", ""])
def test_another_s_name_is_not_taken_for_ours(name: str) -> None:
    """A program may store what it likes, and somebody may have sent anything."""
    assert read_name(name) is None


def test_a_name_that_systemd_would_cut_is_not_made() -> None:
    """A path of 107 octets, each of which has to be quoted."""
    assert make_name("unix:/" + "é" * 53) == ""
