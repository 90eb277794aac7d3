"""What a template does so that little of it is copied: see `stages.preload.sharing`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.source_tree import ROOT

if TYPE_CHECKING:
    from support.service_home import Home, Told

MOST_OF_A_WORKER = 3840
"""KiB. Measured, the same to 20 KiB at every start: 3500 on CPython 3.11 and 3060 on 3.13. Without
`sharing` 3960 and, from start to start, 3410 to 3680."""

# Every second block of some pools is free, as after an import; then new objects are made.
SCATTERED = """
import sys
from forkfirst.stages.preload import sharing
size = 112
made = [bytes(size - 33) for _ in range(4000)]
kept = made[::2]
del made
if sys.argv[1:] == ["fill"]:
    sharing.fill_holes()
fresh = [bytes(size - 33) for _ in range(200)]
print(len({id(one) // 4096 for one in fresh}), sum(map(len, sharing._fillers)) > 0)
"""


def _count_pages(*words: str) -> tuple[int, bool]:
    done = subprocess.run(
        [sys.executable, "-c", SCATTERED, *words], capture_output=True, text=True, check=True
    )
    pages, is_filled = done.stdout.split()
    return int(pages), is_filled == "True"


def test_new_objects_lie_together_once_the_holes_are_filled() -> None:
    """Each page that they lie on is copied: 200 of them need 6, and not one for every 18."""
    before, _ = _count_pages()
    after, is_filled = _count_pages("fill")
    assert before >= 10, "or this shows nothing"
    assert (after <= 8, is_filled) == (True, True)


def test_with_another_allocator_nothing_is_kept() -> None:
    """Its blocks do not come in a row, so that there is no telling when the holes are filled."""
    program = (
        "from forkfirst.stages.preload import sharing\n"
        "sharing.fill_holes()\n"
        "print(len(sharing._fillers))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"


@pytest.mark.slow
def test_a_worker_has_little_of_its_own(home: Home, told: Told) -> None:
    """After its start, and a full collection. It is what eight workers are more than one."""
    program = ROOT / "benchmarks" / "large_app.py"
    home.environment["LARGE_MIB"] = "20"
    listen = ("--listen", f"web=unix:{home.directory / 'web'}")
    home.start(f"{program}:main", "--workers", 4, "--preload=require", *listen)
    workers = [int(told.wait().split()[1]) for _ in range(4)]
    for pid in workers:
        os.kill(pid, signal.SIGUSR1)
    for _ in workers:
        assert told.wait().startswith("collected")
    assert max(map(_read_own, workers)) < MOST_OF_A_WORKER


def _read_own(pid: int) -> int:
    """Return the memory that *pid* shares with nobody, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("Private_Dirty:")[2].split()[0])
