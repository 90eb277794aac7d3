"""A launcher that comes late hears what was: the pid that it is told is nobody's any more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from support.service_home import PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Home

ENDS = {
    "after it was ready": ("context.ready()", 0),
    "before it was ready": ("raise SystemExit(3)", 3),
    "by an error": ("1 / 0", 70),
    "by a signal": ("__import__('os').kill(__import__('os').getpid(), 9)", 137),
}


@pytest.mark.parametrize("end", ENDS)
def test_how_a_service_has_ended_is_not_lost_on_the_way(home: Home, end: str) -> None:
    """Whether it was ready, and if not, why: never "no such process"."""
    what, status = ENDS[end]
    path = home.program("app.py", f"def main(context):\n    {what}\n")
    done = home.run(sys.executable, PROGRAMS / "late_launcher.py", path)
    assert done.status == status, done
    assert "no such process" not in done.err
    assert home.list_processes() == {}
