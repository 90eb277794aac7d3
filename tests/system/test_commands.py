"""What a person types, from the first start to the last stop, with real services."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.service_home import PROGRAMS, talk

if TYPE_CHECKING:
    from support.service_home import Home

DAEMONS = PROGRAMS / "daemons.py"
COMMAND = ("--settle", "60", "--", sys.executable, str(DAEMONS), "serve")

WAYS = {
    "asyncio": (f"{DAEMONS}:serve",),
    "uvloop": (f"{DAEMONS}:serve", "--runtime", "uvloop"),
    "trio": (f"{DAEMONS}:serve_on_trio", "--runtime", "trio"),
    "none": (f"{DAEMONS}:serve_plainly",),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_service_is_started_answers_and_is_stopped(home: Home, way: str, kind: str) -> None:
    """The whole life of a service on every runtime, over TCP and over a path."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{home.directory}/web"
    done = home.start(*WAYS[way], "--name", "app", "--listen", f"web={address}")
    assert re.fullmatch(
        rf"app: running in the background, pid {home.pid('app')}, ready after \d+ ms, "
        rf"log {home.state}/app.log, serving on \w+(\.\w+)*\n",
        done.out,
    )
    assert talk(home.address("app")) == b"hello\n"
    assert home.status("app")["runtime"] == way
    pid = home.pid("app")
    assert home.stop("app").out == f"app: stopped (pid {pid})\n"
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]
    assert not (home.directory / "web").exists()
