"""Each system call of a start fails once, as a kernel in need lets it fail."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from support.injected_start import list_sites, start_with_failure
from support.service_home import PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Done, Home, Told

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="traces a process that it has not started"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace"),
]

WORDS = (f"{PROGRAMS / 'daemons.py'}:serve", "--name", "app", "--listen", "web=127.0.0.1:0")
OWN = os.path.dirname(errors.__file__)  # noqa: PTH120 - as a traceback has it
DOCUMENTED = {
    kind.exit_status
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ForkfirstError)
}


LEFT_BY_A_GOOD_START = {"app.log", "run/app.service"}


def _begins_or_ends_in_us(text: str) -> bool:
    """Return whether a traceback is ours; in between, our loop may be what a program calls."""
    files = re.findall(r'^ *File "([^"]+)"', text, re.MULTILINE)
    return any(file.startswith(OWN) for file in (*files[:1], *files[-1:]))


def judge(home: Home, done: Done) -> str:
    """Return what is wrong with how a start ended, or ""."""
    allowed = LEFT_BY_A_GOOD_START if done.status == 0 else set()
    left = home.list_processes(), sorted(set(home.list_files()) - allowed)
    fault = ""
    if left != ({}, []):
        fault = f"left {left}"
    elif done.status == 0:
        fault = ""  # it could be done without
    elif done.status not in DOCUMENTED:
        fault = f"status {done.status}"
    elif _begins_or_ends_in_us(done.err):
        fault = "a traceback of ours"
    elif not any(line.startswith("forkfirst: ") for line in done.err.splitlines()):
        fault = "no message"
    return fault


@pytest.mark.parametrize("role", ["launcher", "leader", "service"])
def test_a_call_that_fails_once_is_told_and_leaves_nothing(
    home: Home, told: Told, role: str
) -> None:
    """A message of ours, a documented status, and nothing left; or the start did without it."""
    sites = list_sites(home, told, role, *WORDS)
    assert sites
    wrong = []
    for site in sites:
        done = start_with_failure(home, told, role, site, *WORDS)
        fault = judge(home, done)
        if fault:
            wrong.append(f"{site}\n  {fault}: status {done.status}: {done.err[-700:]}")
            home.end_all()
    assert not wrong, "\n".join(wrong)
