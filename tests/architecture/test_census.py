"""What is alive, and what is loaded, in the moment of each fork of a real start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Each of them starts something, or is the person's own, or costs more than the fork itself.
_NEVER_BEFORE_A_FORK = {
    *("ssl", "subprocess", "multiprocessing", "importlib.metadata", "concurrent.futures.thread"),
    *("uvloop", "trio", "anyio", "msgspec", "hello", "typing", "dataclasses", "pathlib", "logging"),
}

PROGRAM = """
import nothing_of_mine

async def main():
    import asyncio
    await asyncio.Event().wait()
"""


def _start_and_look(directory: Path, *flags: str) -> list[dict[str, Any]]:
    (directory / "hello.py").write_text(PROGRAM)
    (directory / "nothing_of_mine.py").write_text("")
    census = directory / "census"
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")
    }
    environment |= {
        "PYTHONPATH": str(ROOT / "benchmarks" / "probe"),
        "BENCH_CENSUS": str(census),
        "FORKFIRST_STATE_DIR": str(directory / "state"),
    }

    def forkfirst(*words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "forkfirst", *words],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=30,
        )

    forkfirst("start", "hello.py:main", *flags)
    forkfirst("stop", "hello")
    return [json.loads(line) for line in census.read_text().splitlines()]


@pytest.mark.parametrize("flags", [(), ("--listen", "web=127.0.0.1:0")], ids=["bare", "listening"])
def test_nothing_that_a_fork_could_break_is_alive(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The one promise that the project is named after."""
    forks = _start_and_look(tmp_path, *flags)
    assert len(forks) == 2, "the launcher forks once, and the session leader once"
    for census in forks:
        assert (census["threads"], census["loops"], census["epolls"]) == (1, 0, 0)
        assert census["foreign"] == []


def test_each_worker_is_forked_from_a_process_without_a_runtime(tmp_path: Path) -> None:
    """The supervisor forks for as long as it lives, so nothing may ever come alive in it."""
    forks = _start_and_look(tmp_path, "--workers", "2")
    assert len(forks) == 4, "the launcher and the session leader once, the supervisor twice"
    for census in forks:
        assert (census["threads"], census["loops"], census["epolls"]) == (1, 0, 0)
        assert census["foreign"] == []
        assert not set(census["names"]) & {*_NEVER_BEFORE_A_FORK, "asyncio"}


def test_no_module_that_starts_something_is_loaded(tmp_path: Path) -> None:
    """What is not loaded cannot have started a thread; and every millisecond is measured."""
    for census in _start_and_look(tmp_path):
        assert not set(census["names"]) & _NEVER_BEFORE_A_FORK


def test_the_census_sees_what_it_should(tmp_path: Path) -> None:
    """Shown to fail without the property: a program that forks with a loop is told apart."""
    census = tmp_path / "census"
    program = (
        "import asyncio, os, threading\n"
        "loop = asyncio.new_event_loop()\n"
        "go = threading.Event(); other = threading.Thread(target=go.wait); other.start()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0)\n"
        "os.waitpid(child, 0); go.set(); other.join(); loop.close()\n"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "benchmarks" / "probe"),
            "BENCH_CENSUS": str(census),
        },
        check=True,
        timeout=30,
    )
    seen = json.loads(census.read_text())
    assert (seen["threads"], seen["loops"], seen["epolls"]) == (2, 1, 1)
