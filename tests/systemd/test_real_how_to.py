"""The pages on how to use it with systemd: their units are installed, their commands are given."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.real_systemd import PYTHON_INSIDE, SOURCE_INSIDE, RealSystemd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
PAGES = ("systemd.md", "low-ports.md", "keep-state.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = "/srv/hello/venv/bin/forkfirst"


@pytest.fixture
def installed(real_systemd: RealSystemd) -> Iterator[RealSystemd]:
    """Put the example and the command where the pages have them; end what they started."""
    files = {
        "/srv/hello/hello.py": (ROOT / "examples" / "hello.py").read_text(),
        COMMAND: f"#!/bin/sh\nexport PYTHONPATH={SOURCE_INSIDE} PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {PYTHON_INSIDE} -m forkfirst "$@"\n',
    }
    for path, text in files.items():
        _put(real_systemd, path, text)
    real_systemd.path(COMMAND).chmod(0o755)
    yield real_systemd
    for unit in real_systemd.path("/etc/systemd/system").glob("*.s*"):
        if unit.name.partition(".")[0] in ("hello", "old", "https", "capable", "counter"):
            real_systemd.run("systemctl", "stop", unit.name, check=False)
            shutil.rmtree(unit) if unit.is_dir() else unit.unlink()


def _put(systemd: RealSystemd, path: str, text: str) -> None:
    inside = systemd.path(path)
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.write_text(text)


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_says_works(installed: RealSystemd, page: str) -> None:
    """Every unit, every program with a path, every command of root's, in the page's order."""
    text = (ROOT / "docs" / "how-to" / page).read_text()
    given = 0
    for kind, block in BLOCK.findall(text):
        first, _, rest = block.partition("\n")
        if kind in ("ini", "python") and first.startswith("# /"):
            _put(installed, first[2:], rest)
    for kind, block in BLOCK.findall(text):
        if kind != "console":
            continue
        shown = ""
        for line in (*block.splitlines(), "#"):
            if not line.startswith("#"):
                assert line in shown, (line, shown)
            elif line != "#":
                words = shlex.split(line[2:].replace("# forkfirst", COMMAND))
                words[0] = COMMAND if words[0] == "forkfirst" else words[0]
                shown = installed.run(*words)
                given += 1
    assert given >= 3
