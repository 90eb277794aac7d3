"""`demo` shows what the explanation says, on the machine of whoever asks."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from support.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from support.service_home import Home


def test_it_lists_what_there_is_with_a_line_each(home: Home) -> None:
    """Every program of the folder, by its name."""
    done = home.forkfirst("demo")
    programs = {path.stem.replace("_", "-") for path in (ROOT / "examples/hazards").glob("*.py")}
    listed = {line.split()[0] for line in done.out.splitlines() if line.startswith("  ")}
    assert (done.status, listed) == (0, programs - {"scene"}), done
    assert "  hang              A daemon that hangs in epoll_wait: " in done.out


def test_it_runs_one_live(home: Home) -> None:
    """With what the guard would have said, and what the child waits in."""
    done = home.forkfirst("demo", "lost-lock")
    assert done.status == 0, done
    assert 'cannot fork "lost-lock": other threads are alive' in done.out
    assert "is still there after 2 s, asleep in " in done.out
    assert home.list_processes() == {}


def test_a_name_that_is_none_is_refused_with_those_there_are(home: Home) -> None:
    """As every command does."""
    done = home.forkfirst("demo", "../hello")
    assert done.status == 64
    assert 'there is no demonstration "../hello"\n  there are deaf-server, ' in done.err


@pytest.mark.real
def test_an_installed_forkfirst_has_them(home: Home, tmp_path: Path) -> None:
    """They are examples in the source, and part of what is installed."""
    wheels = tmp_path / "wheels"
    build = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT)
    if subprocess.run(build, capture_output=True, check=False).returncode:
        pytest.skip("needs pip, and hatchling from where pip finds packages")
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    home.environment["PYTHONPATH"] = str(tmp_path / "installed")
    done = home.forkfirst("demo")
    assert done.status == 0, done
    assert f"{tmp_path}/installed/forkfirst/demos" in done.out
