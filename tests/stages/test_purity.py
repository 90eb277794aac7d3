"""What exists at each fork, whichever way a service is started: nothing that a fork could break."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.service_home import PROGRAMS
from support.source_tree import ROOT

if TYPE_CHECKING:
    from support.service_home import Home

DAEMONS = PROGRAMS / "daemons.py"
OWN = """
import forkfirst

async def serve(context):
    import asyncio
    context.ready()
    await context.wait_stopping()

service = forkfirst.Service(program=serve, name="app")

if __name__ == "__main__":
    service.main()
"""
FILE = f"""
[service.one]
target = "{DAEMONS}:wait"
[service.two]
target = "{DAEMONS}:wait"
runtime = "uvloop"
"""
WAYS = {
    "a file": (f"{DAEMONS}:wait",),
    "a listener": (f"{DAEMONS}:serve", "--listen", "web=127.0.0.1:0"),
    "uvloop": (f"{DAEMONS}:wait", "--runtime", "uvloop"),
    "trio": (f"{DAEMONS}:wait", "--runtime", "trio"),
    "a plain function": (f"{DAEMONS}:wait_plainly", "--runtime", "none"),
    "a command": ("--name", "app", "--settle", "0.01", "--", "sleep", "1000"),
}


@pytest.fixture
def counted(home: Home) -> Home:
    """A home in which every Python process looks at itself before each fork."""
    # What measures the tests has modules of its own.
    home.environment = {k: v for k, v in home.environment.items() if not k.startswith("COV")}
    path = [str(ROOT / "benchmarks" / "probe"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    home.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    home.environment["BENCH_CENSUS"] = str(home.directory / "census")
    return home


def read_census(home: Home) -> list[dict[str, Any]]:
    lines = (home.directory / "census").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_pure(home: Home, *, forks: int) -> None:
    found = read_census(home)
    assert len(found) == forks
    for one in found:
        assert (one["threads"], one["loops"], one["epolls"]) == (1, 0, 0)
        assert (one["foreign"], one["runtime modules"]) == ([], [])


@pytest.mark.parametrize("way", WAYS)
def test_at_the_forks_of_a_start_there_is_no_runtime(counted: Home, way: str) -> None:
    """One thread, no loop, no epoll, no module but the standard library's and ours; no asyncio."""
    counted.start(*WAYS[way])
    assert_pure(counted, forks=2)


def test_nor_at_those_of_a_file_with_several_services(counted: Home) -> None:
    """The launcher has started one already when it forks the other."""
    counted.program("forkfirst.toml", FILE)
    counted.start()
    found = read_census(counted)
    assert len(found) == 4
    for one in found:
        assert (one["threads"], one["loops"], one["epolls"]) == (1, 0, 0)
        # What reads the file; it is loaded when the first two forks are over.
        assert set(one["foreign"]) <= {"msgspec", "typing_extensions"}
        assert one["runtime modules"] == []


@pytest.mark.parametrize("command", ["start", "restart"])
def test_nor_at_those_of_a_program_that_starts_itself(counted: Home, command: str) -> None:
    """Its module is loaded, and has only defined things."""
    path = counted.program("own.py", OWN)
    assert counted.run(sys.executable, path, "start").status == 0
    if command == "restart":
        (counted.directory / "census").unlink()
        assert counted.run(sys.executable, path, "restart").status == 0
    assert_pure(counted, forks=2)


HAZARDS = {
    "thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    ),
    "loop": "import asyncio\nloop = asyncio.new_event_loop()\n",
    "epoll": "import os, select\nepoll = select.epoll()\nepoll.register(os.pipe()[0])\n",
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_a_program_that_has_begun_something_is_not_forked(home: Home, hazard: str) -> None:
    """70, and what was found: this is what all the others are spared."""
    path = home.program("own.py", HAZARDS[hazard] + OWN)
    done = home.run(sys.executable, path, "start")
    assert done.status == 70
    assert hazard in done.err
    assert "Traceback" not in done.err
    assert (home.list_processes(), home.list_files()) == ({}, [])
