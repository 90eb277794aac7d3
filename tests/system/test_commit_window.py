"""The time in which a reload can be undone: the old workers accept nobody, and are not gone."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.service_home import PATIENCE, PROGRAMS, talk

if TYPE_CHECKING:
    from pathlib import Path

    from support.service_home import Home

RUNTIMES = {
    "asyncio": ("serve", "asyncio"),
    "uvloop": ("serve", "uvloop"),
    "trio": ("serve_on_trio", "trio"),
    "anyio over trio": ("serve_on_anyio", "trio"),
    "threads": ("serve_plainly", "none"),
}
_COUNT = itertools.count()


def _write(home: Home, word: str) -> Path:
    text = (PROGRAMS / "worded.py").read_text().replace("first", word)
    return home.program("app.py", text + f"# {next(_COUNT) * 'x'}\n")  # never of the same size


def _wait_until(home: Home, holds: Any) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while not holds(found := home.status("app")):
        assert time.monotonic() < deadline, (found, home.log("app"))
    return found


def _list_pids(found: dict[str, Any], *states: str) -> list[int]:
    return [one["pid"] for one in found["workers"] if one["state"] in states]


@pytest.mark.parametrize("way", RUNTIMES)
def test_a_paused_worker_accepts_nobody_until_it_is_called_back(home: Home, way: str) -> None:
    """On every runtime: else old and new code would serve side by side for all of the window."""
    name, runtime = RUNTIMES[way]
    words = ("--runtime", runtime, "--listen", "web=127.0.0.1:0", "--workers", 1)
    home.start(f"{_write(home, 'first')}:{name}", *words)
    address = home.address("app")
    assert talk(address, b"") == b"first\n"
    old = _list_pids(home.status("app"), "ready")
    _write(home, "other")
    with subprocess.Popen(
        home.words("reload", "app", "--commit-window", "60"),
        cwd=home.directory,
        env=home.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as reload:
        found = _wait_until(home, lambda found: _list_pids(found, "paused"))
        assert _list_pids(found, "paused") == old
        deadline = time.monotonic() + PATIENCE
        while {talk(address, b"") for _ in range(20)} != {b"other\n"}:  # it is told, and does it
            assert time.monotonic() < deadline
        for pid in _list_pids(found, "ready"):
            os.kill(pid, signal.SIGKILL)
        assert reload.wait(PATIENCE) == 70
    assert {talk(address, b"") for _ in range(20)} == {b"first\n"}
    assert "cannot be paused" not in home.log("app")
    assert _list_pids(_wait_until(home, lambda one: len(one["workers"]) == 1), "ready") == old
    home.stop("app")


def test_a_command_is_refused_a_commit_window(home: Home) -> None:
    """It cannot be paused, and to run both for the whole window would be nobody's wish."""
    command = (home.words()[0], PROGRAMS / "daemons.py", "serve")
    flags = ("--name", "app", "--listen", "web=127.0.0.1:0", "--workers", 1)
    done = home.forkfirst("start", *flags, "--commit-window", "5s", "--", *command)
    assert done.status == 78
    assert "a command cannot be" in done.err


@pytest.mark.parametrize("way", ["asyncio", "trio", "threads"])
def test_status_names_the_runtime_that_the_workers_have(home: Home, way: str) -> None:
    """Nobody asked for one, so only they can tell."""
    name, runtime = RUNTIMES[way]
    asked = ("--runtime", "trio") if way == "trio" else ()
    program = _write(home, "first")
    home.start(f"{program}:{name}", *asked, "--listen", "web=127.0.0.1:0", "--workers", 1)
    assert home.status("app")["runtime"] == runtime
