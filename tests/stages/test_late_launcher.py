"""A launcher that comes late hears what was: the pid that it is told is nobody's any more."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from support.service_home import PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Home, Told

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


def test_who_gives_up_before_it_has_heard_anything_still_stops_the_service(
    home: Home, told: Told
) -> None:
    """Its `finally` blocks run: it is told, not killed."""
    home.environment["HANGS"] = str(home.directory / "hangs")
    os.mkfifo(home.directory / "hangs")
    path = home.program(
        "app.py",
        "import asyncio, os, signal\n"
        "def tell(name, text):\n"
        "    with open(os.environ[name], 'w') as fifo:\n"
        "        fifo.write(text)\n"
        "async def main(context):\n"
        # The launcher's own SIGINT, blocked since the fork: it interrupts its first wait.
        "    os.kill(int(os.environ['LAUNCHER']), signal.SIGINT)\n"
        "    asyncio.get_running_loop().call_soon(tell, 'HANGS', 'here')\n"
        "    try:\n        await asyncio.Event().wait()\n"
        "    finally:\n        tell('TELL', 'stopped in order\\n')\n",
    )
    done = home.run(sys.executable, PROGRAMS / "late_launcher.py", path, "20")
    assert done.status == 130
    assert told.wait() == "stopped in order"
    assert (home.list_processes(), home.list_files()) == ({}, [])
