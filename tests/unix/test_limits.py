"""Limits are understood exactly, and set or refused, never clamped in silence."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.unix import limits
from support.child_program import run_child

NUMBERS = st.one_of(st.none(), st.just(limits.INFINITY), st.integers(0, 2**63 - 1))


@pytest.mark.parametrize(
    ("text", "soft", "hard"),
    [
        ("nofile=1024:4096", 1024, 4096),
        ("nofile=1024", 1024, 1024),
        ("nofile=1024:", 1024, None),
        ("nofile=:4096", None, 4096),
        ("as=2G", 2**31, 2**31),
        ("core=0:infinity", 0, -1),
        ("memlock=unlimited", -1, -1),
    ],
)
def test_a_limit_is_read_as_written(text: str, soft: int | None, hard: int | None) -> None:
    """One number sets both halves, an empty half leaves the present one."""
    limit = limits.parse_limit(text)
    assert (limit.soft, limit.hard) == (soft, hard)


@pytest.mark.parametrize(
    "text",
    [
        *("", "nofile", "nofile=", "nofile=:", "nofile=x", "nofile=-1", "nofile=1.5", "nofile=K"),
        *("nofile=1:2:3", "NOFILE=1", "files=1", "nofile=2:1", "nofile=infinity:1"),
        "nofile=99999999T",
    ],
)
def test_what_is_no_limit_is_refused_with_its_text(text: str) -> None:
    """A limit that was not understood must not become another one."""
    with pytest.raises(errors.ConfigError) as caught:
        limits.parse_limit(text)
    assert f'"{text}"' in str(caught.value)


@given(st.sampled_from(limits.NAMES), NUMBERS, NUMBERS)
def test_a_limit_printed_is_the_limit_read(name: str, soft: int | None, hard: int | None) -> None:
    """The plan shows limits in the words that set them."""
    limit = limits.Limit(name=name, soft=soft, hard=hard)
    try:
        parsed = limits.parse_limit(str(limit))
    except errors.ConfigError:
        assert (soft, hard) == (None, None) or (hard != -1 and soft is not None)
    else:
        assert parsed == limit


@given(st.text())
def test_no_text_crashes_the_parser(text: str) -> None:
    """The text comes from a command line."""
    with contextlib.suppress(errors.ConfigError):
        limits.parse_limit(text)


SET = """
import json, resource, sys
from forkfirst import errors
from forkfirst.unix import limits
said = ""
try:
    limits.set_limits(tuple(map(limits.parse_limit, sys.argv[1:])))
except errors.ForkfirstError as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps([resource.getrlimit(resource.RLIMIT_NOFILE), said]))
"""


def test_limits_are_set_in_order_and_halves_are_left() -> None:
    """A soft limit alone must not lower the hard one for good."""
    (soft, hard), said = run_child(SET, "nofile=200:256", "nofile=128:")
    assert (soft, hard, said) == (128, 256, "")


def test_a_soft_limit_above_the_present_hard_one_is_a_wrong_configuration() -> None:
    """Nothing is clamped: the message has the present limit."""
    (soft, hard), said = run_child(SET, "nofile=256", "nofile=512:")
    assert (soft, hard) == (256, 256)
    assert said.startswith('ConfigError: cannot set the limit "nofile=512:": it is nofile=256 now')


def test_a_hard_limit_that_may_not_rise_is_refused() -> None:
    """Even root cannot exceed fs.nr_open, and others not their own hard limit."""
    (soft, hard), said = run_child(SET, "nofile=256", "nofile=infinity")
    assert (soft, hard) == (256, 256)
    assert said.startswith('PermissionRefusedError: cannot set the limit "nofile=infinity"')
