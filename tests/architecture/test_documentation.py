"""The pages say what the code does, and what they tell a reader to type works."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from forkfirst import config_file
from support.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_the_generated_pages_are_what_the_code_says_now() -> None:
    """A reference that lags behind is worse than none: it is believed."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, f"{made.stdout}{made.stderr}\nrun `make docs`"


def test_the_program_of_the_tutorial_runs(tmp_path: Path) -> None:
    """It is the first thing that a person tries; if it fails, so has everything else."""
    page = (ROOT / "docs" / "tutorial" / "first-daemon.md").read_text(encoding="utf-8")
    program = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "hello.py").write_text(program, encoding="utf-8")

    started = _forkfirst(
        tmp_path, "start", "hello.py:main", "--listen", f"web=unix:{tmp_path}/web.sock"
    )
    try:
        assert started.returncode == 0, started.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "web.sock"))
            client.sendall(b"\n")
            assert client.recv(16) == b"hello\n"
    finally:
        stopped = _forkfirst(tmp_path, "stop", "hello")
    assert stopped.returncode == 0, stopped.stderr


def test_every_key_of_the_configuration_is_described() -> None:
    """Nobody finds a key that only the code knows, nor can use one that only the page knows."""
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `([a-z-]+)` \|", page, flags=re.MULTILINE)
    known = [field.encode_name for field in msgspec.structs.fields(config_file._Service)]  # noqa: SLF001 - the one place that has them
    assert sorted(described) == sorted(known)


def test_every_page_is_reachable() -> None:
    """A page that no list names is read by nobody."""
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in listed


def _forkfirst(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forkfirst", *words],
        cwd=directory,
        env={**os.environ, "FORKFIRST_STATE_DIR": str(directory / "state")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
