"""A client has its service: started if it must be, once, and talked to when it is ready."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import forkfirst
from forkfirst import errors
from support.service_home import PROGRAMS, holding, wait_gone
from support.source_tree import ROOT

if TYPE_CHECKING:
    from support.service_home import Home, Told

CLIENTS = PROGRAMS / "clients.py"
SERVE = f"{PROGRAMS / 'daemons.py'}:serve"
TOOL = ROOT / "examples" / "tool" / "tool.py"
_BROKEN = """
async def main(context):
    raise ValueError("broken")
"""
_SLOW_TO_STOP = """
import os
async def main(context):
    context.ready()
    await context.wait_stopping()
    with open(os.environ["TELL"], "w") as fifo:
        fifo.write("stopping\\n")
    with open(os.environ["GATE"], "rb") as gate:
        gate.read()
"""


@pytest.fixture(autouse=True)
def address(home: Home) -> None:
    """Choose where the service of these tests listens, if a test does not."""
    home.environment["LISTEN"] = f"web=unix:{home.directory}/web"


@pytest.fixture
def here(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Make the home that of this process, which is a client as any other."""
    for name in ("FORKFIRST_STATE_DIR", "LISTEN", "TELL", "GATE"):
        if name in home.environment:
            monkeypatch.setenv(name, home.environment[name])
    return home


def open_clients(home: Home, how: str, count: int, *words: str) -> subprocess.Popen[bytes]:
    return home.open(sys.executable, CLIENTS, how, count, *words, stdout=subprocess.PIPE)


def ask(home: Home, how: str = "threads", count: int = 1, *words: str) -> list[str]:
    """Let *count* clients say hello, in a process of their own; return what they heard."""
    out, _ = open_clients(home, how, count, *(words or ("",))).communicate()
    heard: list[str] = json.loads(out)
    return heard


def declare(program: str = SERVE, **settings: Any) -> forkfirst.Service:
    return forkfirst.Service(program=program, name="app", **settings)


# -- one client ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["threads", "asyncio", "trio"])
@pytest.mark.parametrize("listener", ["web=unix:{}/web", "web=127.0.0.1:0", "web=[::1]:0"])
def test_a_client_starts_its_service_and_talks_to_it(home: Home, how: str, listener: str) -> None:
    """Over a path and over TCP, with whatever the client waits."""
    home.environment["LISTEN"] = listener.format(home.directory)
    assert ask(home, how) == ["hello\n"]
    pid = home.pid("app")
    assert ask(home, how) == ["hello\n"]
    assert home.pid("app") == pid, "the second one found it running"


def test_the_service_outlives_its_client(home: Home) -> None:
    """It is a daemon like any other: it is seen, and stopped, by its name."""
    ask(home)
    assert home.status("app")["state"] == "ready"
    home.stop("app")
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]


def test_a_service_that_was_killed_is_replaced(home: Home) -> None:
    """Its pid file and its socket are still there, and nobody listens."""
    ask(home)
    pid = home.pid("app")
    with holding(pid) as pidfd:
        os.kill(pid, signal.SIGKILL)
        assert pidfd is not None
        wait_gone(pidfd)
    assert (home.directory / "web").exists()
    assert ask(home) == ["hello\n"]
    assert home.pid("app") != pid


def test_without_a_service_nothing_is_started(here: Home) -> None:
    """Who only knows the name is told that it does not run."""
    with (
        pytest.raises(errors.NotRunningError, match='"app" is not running'),
        forkfirst.connect("app"),
    ):
        pass
    assert here.list_processes() == {}


def test_a_running_service_is_found_by_its_name_alone(here: Home) -> None:
    """Where it listens is its own knowledge."""
    here.start(SERVE, "--name", "app", "--listen", "web=127.0.0.1:0")
    with forkfirst.connect("app") as stream:
        stream.sendall(b"hello\n")
        assert stream.recv(100) == b"hello\n"
    assert stream.fileno() == -1, "it is closed when the block is left"


def test_one_of_several_listeners_is_chosen_by_name(here: Home) -> None:
    """And must be: a guess would be a connection to something else."""
    words = ("--listen", "web=127.0.0.1:0", "--listen", f"admin=unix:{here.directory}/admin")
    here.start(SERVE, "--name", "app", *words)
    with forkfirst.connect("app", listener="admin") as stream:
        assert stream.getpeername() == f"{here.directory}/admin"
    with pytest.raises(errors.UsageError) as refused, forkfirst.connect("app"):
        pass
    assert refused.value.hint == "it has web, admin"


def test_a_start_that_fails_is_the_clients_failure(here: Home) -> None:
    """With the program's traceback, not a time limit."""
    here.program("broken.py", _BROKEN)
    service = declare(f"{here.directory}/broken.py:main")
    with pytest.raises(errors.ProgramFailedError) as failed:
        forkfirst.ensure_running(service)
    assert failed.value.__notes__[0].endswith("ValueError: broken\n")
    assert here.list_processes() == {}


def test_a_service_that_is_stopping_is_waited_for_and_started_anew(home: Home, told: Told) -> None:
    """A connection to the old one would be cut."""
    gate = home.directory / "gate"
    os.mkfifo(gate)
    home.environment |= {"GATE": str(gate), "SERVE": "serve"}
    home.program("slow.py", _SLOW_TO_STOP)
    home.start("slow.py", "--name", "app", "--grace-period", "30")
    old = home.pid("app")
    os.kill(old, signal.SIGTERM)
    assert told.wait() == "stopping"
    client = open_clients(home, "threads", 1, "")
    gate.write_bytes(b"\n")
    out, _ = client.communicate()
    assert json.loads(out) == ["hello\n"]
    assert home.pid("app") != old


def test_ensure_running_says_what_runs(here: Home) -> None:
    """And whether it was this call that started it."""
    service = declare(version="7")
    first, second = forkfirst.ensure_running(service), forkfirst.ensure_running(service)
    assert (first.is_new, second.is_new) == (True, False)
    assert first.pid == second.pid == here.pid("app")
    assert first.version == second.version == "7"
    assert first.status == second.status
    assert here.status("app")["version"] == "7"
    assert here.status("app")["forkfirst"] == forkfirst.__version__


# -- versions --------------------------------------------------------------------------------------


def test_another_version_is_seen(here: Home) -> None:
    """A client that speaks to yesterday's code must know."""
    forkfirst.ensure_running(declare(version="1"))
    with pytest.raises(errors.VersionSkewError, match="is of version 1, not 2") as failed:
        forkfirst.ensure_running(declare(version="2"))
    assert here.status("app")["version"] == "1"
    assert failed.value.hint.startswith("forkfirst stop app, ")
    here.stop("app")  # as the hint has it; a restart would have brought version 1 again
    assert forkfirst.ensure_running(declare(version="2")).version == "2"


def test_another_version_is_replaced_if_that_is_wanted(here: Home) -> None:
    """With its grace period, and by one that runs when the call returns."""
    old = forkfirst.ensure_running(declare(version="1"))
    new = forkfirst.ensure_running(declare(version="2"), replace=True)
    assert (new.version, new.is_new) == ("2", True)
    assert new.pid != old.pid
    assert list(here.list_processes()) == [new.pid]


@pytest.mark.usefixtures("here")
def test_the_same_version_is_never_replaced() -> None:
    """Replacing is for what differs, and a service without a version fits everybody."""
    old = forkfirst.ensure_running(declare(version="1"))
    assert forkfirst.ensure_running(declare(version="1"), replace=True).pid == old.pid
    assert forkfirst.ensure_running(declare(), replace=True).pid == old.pid


# -- many clients ----------------------------------------------------------------------------------


def storm(home: Home, processes: int, each: int, *words: str) -> list[str]:
    """Let *each* clients in each of *processes* begin at once; return what all of them heard."""
    hows = ("asyncio", "trio", "threads", "asyncio")
    clients = [open_clients(home, hows[n % 4], each, *words) for n in range(processes)]
    return [heard for client in clients for heard in json.loads(client.communicate()[0])]


def test_two_hundred_clients_start_one_service(home: Home) -> None:
    """Whoever comes first: one lock, one process, two hundred answers."""
    assert storm(home, 4, 50, "1") == ["hello\n"] * 200
    assert len(home.list_processes()) == 1
    assert home.list_files() == ["app.log", "run/app.pid", "run/app.service", "run/app.sock"]


def test_two_hundred_clients_replace_a_service_once(home: Home) -> None:
    """Whoever decides to replace it looks again with the process in its hand."""
    ask(home, "threads", 1, "1")
    old = home.pid("app")
    assert storm(home, 4, 50, "2", "replace") == ["hello\n"] * 200
    assert home.status("app")["version"] == "2"
    assert home.pid("app") != old
    assert len(home.list_processes()) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("_", range(20))
def test_many_storms(home: Home, _: int) -> None:
    """The same with a service that dies in between, again and again."""
    for version in ("1", "2"):
        assert storm(home, 8, 25, version, "replace") == ["hello\n"] * 200
        (pid,) = home.list_processes()
        with holding(pid) as pidfd:
            os.kill(pid, signal.SIGKILL)
            assert pidfd is not None
            wait_gone(pidfd)


# -- the example -----------------------------------------------------------------------------------


@pytest.fixture
def tool(home: Home) -> Any:
    """Run a command of the example, and return its status and what it said."""
    home.environment["TOOL_HOME"] = str(home.directory / "tool")

    def run(*words: str) -> tuple[int, str]:
        done = home.run(sys.executable, TOOL, *words)
        return done.status, done.out + done.err

    return run


def test_the_example_is_a_tool_with_a_daemon(home: Home, tool: Any) -> None:
    """Its commands start the daemon, share what it remembers, and stop it."""
    assert tool("daemon", "status") == (3, "tool: not running\n")
    assert tool("ask", "remember", "colour", "blue") == (0, "colour is blue\n")
    assert tool("ask", "recall", "colour") == (0, "blue\n")
    assert tool("ask", "recall", "shape") == (1, "tool: nothing is known of shape\n")
    assert tool("ask", "count") == (0, "1\n")
    pid = home.pid("tool")
    assert tool("daemon", "start") == (0, f"the daemon runs already, pid {pid}\n")
    assert re.match(rf"tool: ready, pid {pid}, up ", tool("daemon", "status")[1])
    assert tool("daemon", "stop") == (0, f"tool: stopped (pid {pid})\n")
    assert home.list_processes() == {}
