"""Reloads of applications that others' servers serve: nothing may be lost there either."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from support import served
from support.load import Load
from support.service_home import PATIENCE

if TYPE_CHECKING:
    from support.service_home import Home

pytestmark = pytest.mark.timeout(120)
EVERY = (*served.LIGHT, *served.HEAVY)
DIES = """    import threading
    threading.Timer(1.0, os._exit, [3]).start()
"""


def lose_nothing(home: Home, how: str, *flags: object, reloads: int, clients: int = 8) -> None:
    """Reload under load, several times, and lose no request."""
    served.begin(home, how, *flags, "--workers", 2)
    words = [b"first\n"]
    with Load(home.address("app"), clients=clients) as load:
        for _, word in zip(
            range(reloads), itertools.cycle(("other", "third", "first")), strict=False
        ):
            served.write(home, word)
            done = home.forkfirst("reload", "app")
            assert done.status == 0, done
            load.wait_for_more(100)
            words.append(f"{word}\n".encode())
    assert load.failures == []
    assert load.words == list(dict.fromkeys(words))
    home.stop("app")


def test_a_reload_loses_no_request(home: Home) -> None:
    """New code for new connections and for kept ones, without a gap."""
    lose_nothing(home, "uvicorn asyncio", reloads=1)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("how", EVERY)
def test_many_reloads_lose_no_request(home: Home, how: str, kind: str) -> None:
    """The same for long, with every server on every runtime that it has."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{home.directory}/web"
    lose_nothing(home, how, "--listen", f"web={address}", reloads=8, clients=16)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("how", EVERY)
def test_the_old_generation_comes_back_if_the_new_one_dies_in_the_commit_window(
    home: Home, how: str
) -> None:
    """It was paused, and not gone: it serves on, the same processes, and kept connections live."""
    served.begin(home, how, "--workers", 1)
    address = home.address("app")
    before = served.ask(address, "/pid")
    with served.connect(address) as kept:
        served.send(kept, "/pid")
        assert served.read(kept)[1] == before
        served.write(
            home,
            "other",
            **{"    await receive()\n    scope": DIES + "    await receive()\n    scope"},
        )
        done = home.forkfirst("reload", "app", "--commit-window", "20s")
        assert done.status != 0, done
        served.send(kept, "/pid")
        assert served.read(kept)[1] == before
    deadline = time.monotonic() + PATIENCE
    while served.ask(address, "/pid") != before:
        assert time.monotonic() < deadline
    assert served.ask(address) == b"first"
    home.stop("app")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("how", EVERY)
def test_who_is_paused_accepts_nobody(home: Home, how: str) -> None:
    """Else two generations would answer by turns for as long as the commit window is open."""
    served.begin(home, how, "--workers", 1)
    address = home.address("app")
    served.write(home, "other")
    waiting = home.open(*home.words("reload", "app", "--commit-window", "3s"))
    deadline = time.monotonic() + PATIENCE
    # For a moment both serve: the old ones are paused when the new ones are ready, and not before.
    while {served.ask(address) for _ in range(50)} != {b"other"}:
        assert time.monotonic() < deadline
    assert waiting.poll() is None, "the window was open all the while"
    assert waiting.wait(PATIENCE) == 0
    home.stop("app")
