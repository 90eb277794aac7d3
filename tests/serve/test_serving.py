"""An application behind a server: ready when it is, stopped as it should be, on our listeners."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import served
from support.service_home import PATIENCE

if TYPE_CHECKING:
    from support.service_home import Home

pytestmark = pytest.mark.timeout(90)


def every(*light: str) -> pytest.MarkDecorator:
    """Return the servers: those of *light* at once, all others where there is time."""
    others = [one for one in (*served.LIGHT, *served.HEAVY) if one not in light]
    marked = [pytest.param(one, marks=[pytest.mark.slow, pytest.mark.real]) for one in others]
    return pytest.mark.parametrize("how", [*light, *marked])


@every(*served.LIGHT)
def test_it_answers_on_every_listener_and_ends_in_order(home: Home, how: str) -> None:
    """Readiness is the lifespan's, the sockets are ours, and the end is the lifespan's too."""
    path = f"{home.directory}/web"
    served.begin(home, how, "--listen", "web=127.0.0.1:0", "--listen", f"local=unix:{path}")
    assert served.ask(home.address("app")) == b"first"
    assert served.ask(path) == b"first"
    assert home.status("app")["status"].startswith(f"served by {how.partition(' ')[0]} ")
    home.stop("app")
    assert "lifespan over" in home.log("app")
    assert not Path(path).exists(), "whoever has made the path removes it"


@every("uvicorn asyncio")
def test_the_requests_of_an_application_are_counted(home: Home, how: str) -> None:
    """No server's own limit is needed, nor its way to leave: the next worker is ready first."""
    served.begin(home, how, "--workers", 1, "--max-requests", 10)
    (first,) = home.status("app")["workers"]
    deadline = time.monotonic() + PATIENCE
    while any(one["pid"] == first["pid"] for one in home.status("app")["workers"]):
        assert served.ask(home.address("app")) == b"first"
        assert time.monotonic() < deadline
    home.stop("app")


@every("uvicorn asyncio")
@pytest.mark.parametrize("name", ["make_app()", "without_lifespan"])
def test_what_makes_an_application_is_called_and_a_lifespan_is_not_needed(
    home: Home, how: str, name: str
) -> None:
    """A factory is what frameworks advise; and the protocol lets applications refuse a lifespan."""
    served.begin(home, how, name=name)
    assert served.ask(home.address("app")) == b"first"
    home.stop("app")


@pytest.mark.uncovered
@every(*served.LIGHT)
@pytest.mark.parametrize(
    "name", ["raises_at_start", pytest.param("says_failed", marks=pytest.mark.slow)]
)
def test_a_lifespan_that_fails_is_a_start_that_fails(home: Home, how: str, name: str) -> None:
    """Some servers go on without, some exit with 0: the person who starts it must be told why."""
    done = served.start(home, how, name=name)
    assert done.status == 70, done
    assert done.err.count("no database today") in (1, 2)  # a traceback has the line of code as well
    assert "the program failed before it was ready" in done.err
    assert "sys.exit" not in done.err
    assert "LifespanFailureError" not in done.err
    home.wait_alone()
    assert home.list_files() == []


@every()
def test_a_lifespan_that_fails_at_its_end_is_a_failure(home: Home, how: str) -> None:
    """What could not be written must not look like a clean end."""
    served.begin(home, how, name="raises_at_end")
    home.stop("app")
    assert "cannot flush" in home.log("app")


@every(*served.LIGHT)
def test_what_was_begun_is_finished(home: Home, how: str) -> None:
    """A request gets its answer, a websocket its goodbye, and only then the lifespan ends."""
    served.begin(home, how)
    address = home.address("app")
    with (
        served.open_websocket(address) as websocket,
        served.connect(address) as kept,
        served.connect(address) as slow,
    ):
        served.send(kept, "/")
        assert served.read(kept)[1] == b"first"
        served.send(slow, "/slow")
        assert served.ask(address) == b"first"  # so the slow one has arrived as well
        os.kill(home.pid("app"), signal.SIGTERM)
        assert served.read_goodbye(websocket) == 1012
        served.send(kept, "/")
        head, word = served.read(kept)
        assert (word, b"connection: close" in head) == (b"first", True)
        assert served.read(slow)[1] == b"slow"
    home.wait_alone()
    log = home.log("app")
    assert log.index("websocket over websocket.disconnect") < log.index("lifespan over")


@every()
def test_a_request_without_an_end_is_cut_at_the_end_of_the_grace_period(
    home: Home, how: str
) -> None:
    """A stop is bounded, and the lifespan has its end all the same."""
    served.begin(home, how, "--grace-period", "3")
    with served.connect(home.address("app")) as endless:
        served.send(endless, "/endless")
        assert served.ask(home.address("app")) == b"first"
        began = time.monotonic()
        home.stop("app")
        assert time.monotonic() - began < 5
    assert "lifespan over" in home.log("app")
    assert "it is ended" not in home.log("app")


@every("uvicorn asyncio")
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_worker_that_leaves_takes_nothing_from_the_others(
    home: Home, how: str, kind: str
) -> None:
    """Their listener is the same: shut down or unlinked by one, it would be gone for all."""
    path = f"{home.directory}/web"
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{path}"
    served.begin(home, how, "--listen", f"web={address}", "--workers", 2)
    before = home.address("app")
    leaving = home.status("app")["workers"][0]["pid"]
    pidfd = os.pidfd_open(leaving)
    assert home.forkfirst("scale", "app", "1").status == 0
    deadline = time.monotonic() + PATIENCE
    while len(found := home.status("app")["workers"]) > 1:
        assert time.monotonic() < deadline, found
    os.close(pidfd)
    last = str(found[0]["pid"]).encode()
    assert {served.ask(before, "/pid") for _ in range(20)} == {last}
    if kind == "unix":
        assert Path(path).is_socket()


@pytest.mark.parametrize(
    "how",
    [
        "hypercorn asyncio",
        *(
            pytest.param(one, marks=pytest.mark.real)
            for one in ("uvicorn asyncio", "granian asyncio")
        ),
    ],
)
def test_wsgi_is_served_as_well(home: Home, how: str) -> None:
    """By hypercorn itself, and by the others through a2wsgi."""
    if not how.startswith("hypercorn"):
        served.need("a2wsgi")
    served.begin(home, how, name="wsgi")
    assert served.ask(home.address("app")) == b"first"
    home.stop("app")


@pytest.mark.uncovered
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--serve-option", "timeout-keepalive=3"), "did you mean timeout-keep-alive"),
        (("--serve-option", "ssl-certfile=no.pem"), "cannot read "),
        (("--serve-option", "lifespan=perhaps"), "is not one of auto, on, off"),
    ],
)
def test_a_mistake_is_one_line(home: Home, flags: tuple[str, str], said: str) -> None:
    """The person's own mistakes need no traceback, and say what would be right."""
    done = served.start(home, "uvicorn asyncio", *flags)
    assert (done.status, said in done.err, "Traceback" in done.err) == (78, True, False), done


def test_a_server_that_is_not_installed_is_named_before_anything_starts(home: Home) -> None:
    """Not by a traceback in a log: how to get it is known."""
    served.write(home)
    (home.directory / "none").mkdir()
    home.environment["PYTHONPATH"] = str(home.directory / "none")
    (home.directory / "none" / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "hidden = lambda name, *more: None if name == 'uvicorn' else find(name, *more)\n"
        "PathFinder.find_spec = hidden\n"
    )
    done = home.forkfirst(
        "start", "app.py:app", "--serve", "uvicorn", "--listen", "web=127.0.0.1:0"
    )
    assert done.status == 78, done
    assert "it is not installed\n  pip install 'forkfirst[uvicorn]'" in done.err
    assert home.list_files() == []
