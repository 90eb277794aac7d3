"""Which descriptors are open, and closing the rest."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.unix import descriptors
from support.fresh import run_fresh

if TYPE_CHECKING:
    from pathlib import Path


def test_the_listing_has_what_is_open_and_not_what_it_needed(tmp_path: Path) -> None:
    """A census that counts itself finds a leak in everything."""
    before = descriptors.list_open()
    fd = os.open(tmp_path, os.O_RDONLY)
    after = descriptors.list_open()
    os.close(fd)
    assert {*after} - {*before} == {fd}
    assert after == tuple(sorted(after))


@given(keep=st.sets(st.integers(0, 30)))
def test_exactly_the_kept_ones_and_the_standard_ones_stay(keep: set[int]) -> None:
    """Whatever the gaps between them are; one that was not open does not come to be."""
    unwanted = [number for number in range(3, 25) if number not in keep]
    runs = list(descriptors._find_runs(unwanted))  # noqa: SLF001 - the decision, without the effect
    covered = list(itertools.chain(*(range(first, last + 1) for first, last in runs)))
    assert covered == unwanted
    assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(runs))


def test_closing_keeps_what_was_asked_for() -> None:
    """The lock, the listeners and the report pipe are among hundreds that are not wanted."""
    outcome = run_fresh("""
from forkfirst.unix import descriptors
opened = [os.open("/", os.O_RDONLY) for _ in range(50)]
keep = {opened[3], opened[4], opened[20], TELL, 1, 199}
descriptors.close_all_except(keep)
tell(same={*descriptors.list_open()} == {0, 1, 2, *keep} - {199})
""")
    assert outcome.told == [{"same": True}], outcome.err


def test_the_work_is_what_is_open_not_what_could_be() -> None:
    """Containers have a limit of 2^30: a loop to it takes minutes, at every start."""
    outcome = run_fresh("""
import resource
from forkfirst.unix import descriptors
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.dup2(TELL, hard - 1)
calls = []
def count(frame, event, function):
    if event == "c_call":
        calls.append(function.__name__)
sys.setprofile(count)
descriptors.close_all_except({TELL})
sys.setprofile(None)
tell(closes=calls.count("closerange"), many=len(calls) > 300,
     asked="getrlimit" in calls or "sysconf" in calls,
     same=descriptors.list_open() == (0, 1, 2, TELL))
""")
    (facts,) = outcome.told
    assert facts["same"]
    assert not facts["asked"]
    assert not facts["many"]
    assert facts["closes"] <= 5


@pytest.mark.parametrize("listings", [("/dev/fd",), ("/nowhere", "/dev/fd"), ()])
def test_it_works_without_proc(listings: tuple[str, ...]) -> None:
    """There is /dev/fd only on macOS, and neither in a bare chroot."""
    outcome = run_fresh(f"""
from forkfirst.unix import descriptors
everywhere = descriptors._LISTINGS
descriptors._LISTINGS = {listings!r}
opened = [os.open("/", os.O_RDONLY) for _ in range(10)]
descriptors.close_all_except({{TELL, opened[4]}})
descriptors._LISTINGS = everywhere
tell(same=descriptors.list_open() == (0, 1, 2, opened[4], TELL))
""")
    assert outcome.told == [{"same": True}], outcome.err


def test_a_listing_that_does_not_know_what_is_open_is_not_believed(tmp_path: Path) -> None:
    """FreeBSD's plain /dev/fd has 0, 1 and 2 only: everything else would stay open."""
    for name in ("0", "1", "2"):
        (tmp_path / name).touch()
    outcome = run_fresh(
        """
from forkfirst.unix import descriptors
opened = os.open("/", os.O_RDONLY)
everywhere = descriptors._LISTINGS
descriptors._LISTINGS = (sys.argv[1],)
try:
    descriptors.list_open()
except OSError as error:
    tell(error=str(error))
descriptors.close_all_except({TELL})
descriptors._LISTINGS = everywhere
tell(same=descriptors.list_open() == (0, 1, 2, TELL))
""",
        tmp_path,
    )
    assert "cannot list" in outcome.told[0]["error"]
    assert outcome.told[1] == {"same": True}


def test_only_the_named_ones_are_inherited() -> None:
    """A command gets its listeners and nothing of forkfirst's own."""
    outcome = run_fresh("""
from forkfirst.unix import descriptors
opened = [os.open("/", os.O_RDONLY) for _ in range(4)]
os.set_inheritable(opened[0], True)
descriptors.set_inheritable_only({opened[2], TELL})
text = ("import json, os, sys\\n"
        "from forkfirst.unix import descriptors\\n"
        "os.write(int(sys.argv[1]), json.dumps({'open': descriptors.list_open()}).encode())")
os.execv(sys.executable, [sys.executable, "-c", text, str(TELL)])
""")
    (inherited,) = outcome.told
    assert len(inherited["open"]) == 5
    assert inherited["open"][:3] == [0, 1, 2]
