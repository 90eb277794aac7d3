"""aiohttp's applications, which are none of ASGI's, served by aiohttp: the same promises."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from support import served
from support.load import Load
from support.service_home import PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Done, Home

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(120)]
EVERY = pytest.mark.parametrize("runtime", ["asyncio", "uvloop"])


def _start(home: Home, runtime: str, *flags: object, name: str = "make_app") -> Done:
    served.need("aiohttp")
    text = (PROGRAMS / "aiohttp_application.py").read_text(encoding="utf-8")
    home.program("app.py", text)
    words = ("--serve", "aiohttp", "--runtime", runtime, "--listen", "web=127.0.0.1:0", *flags)
    return home.forkfirst("start", f"app.py:{name}", *words)


@EVERY
def test_what_was_begun_is_finished(home: Home, runtime: str) -> None:
    """A request gets its answer, a websocket its goodbye, and only then the application ends."""
    assert _start(home, runtime).status == 0
    address = home.address("app")
    with (
        served.open_websocket(address, "/websocket") as websocket,
        served.connect(address) as kept,
        served.connect(address) as slow,
    ):
        served.send(kept, "/")
        assert served.read(kept)[1] == b"first"
        served.send(slow, "/slow")
        assert served.ask(address) == b"first"
        os.kill(home.pid("app"), signal.SIGTERM)
        assert served.read_goodbye(websocket) == 1012
        served.send(kept, "/")
        head, word = served.read(kept)
        assert (word, b"connection: close" in head) == (b"first", True)
        assert served.read(slow)[1] == b"slow"
    home.wait_alone()
    log = home.log("app")
    assert log.index("websocket over") < log.index("lifespan over")


@EVERY
def test_a_startup_that_fails_is_a_start_that_fails(home: Home, runtime: str) -> None:
    """With its traceback, and nothing left."""
    done = _start(home, runtime, name="make_broken_app")
    assert (done.status, "RuntimeError: no database today" in done.err) == (70, True), done
    home.wait_alone()
    assert home.list_files() == []


@EVERY
def test_reloads_lose_no_request(home: Home, runtime: str) -> None:
    """With new connections and with kept ones."""
    assert _start(home, runtime, "--workers", 2).status == 0
    with Load(home.address("app"), clients=16) as load:
        for _ in range(5):
            assert home.forkfirst("reload", "app").status == 0
            load.wait_for_more(100)
    assert load.failures == []
    home.stop("app")
