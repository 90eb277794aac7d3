"""The demonstrations show, on this machine, what they say."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from support.source_tree import ROOT

_EXAMPLES = ROOT / "examples" / "hazards"
# name → what its output must say, and what the guard must have said before
_SHOWN = {
    "hang": (r"the daemon \(pid \d+\) is still there after 2 s", "a runtime is alive"),
    "deaf_server": (r"before: 5 of 5(.|\n)*sys\.exit\(\): 0 of 5 answered", "a runtime is alive"),
    "lost_lock": (r"the child \(pid \d+\) is still there after 2 s", "other threads are alive"),
    "signal_crossover": (r"the child is alive, asleep", "a runtime is alive"),
    "doubled_output": (r"one line was written; the file has 2", "nothing is seen"),
    "lock_file": (
        r"lockf\(\): .* starts as well(.|\n)*flock\(\): .* is refused",
        "this process holds what a fork would break",
    ),
    "real_tokio": (r"is still there after 2 s", "tokio-rt-worker"),
}


@pytest.mark.uncovered
@pytest.mark.parametrize("name", _SHOWN)
def test_a_demonstration_shows_what_it_says(name: str) -> None:
    """Every claim of the explanation is one of these programs."""
    if name == "real_tokio" and importlib.util.find_spec("obstore") is None:
        pytest.skip("needs obstore")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(_EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    shown, said = _SHOWN[name]
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(shown, done.stdout), done.stdout
    assert said in done.stdout


def test_every_demonstration_is_tested_and_explained() -> None:
    """A program beside the page that nobody runs would rot."""
    programs = {path.stem for path in _EXAMPLES.glob("*.py")} - {"scene"}
    assert programs == set(_SHOWN)
    page = (ROOT / "docs" / "explanation" / "why-fork-first.md").read_text(encoding="utf-8")
    for name in programs:
        assert f"examples/hazards/{name}.py" in page
