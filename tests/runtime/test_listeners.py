"""Programs serve what they were given, and leave it where it was."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING

import pytest

from support.runtime_child import PROGRAMS, Flavour, start_program

if TYPE_CHECKING:
    from collections.abc import Iterator

ASYNCIO = Flavour("asyncio_", "asyncio")
UVLOOP = Flavour("uvloop_", "asyncio")
TRIO = Flavour("trio_", "trio")
PLAIN = Flavour("plain", "asyncio")


def listen(kind: str, folder: Path) -> socket.socket:
    if kind == "tcp":
        bound = socket.create_server(("127.0.0.1", 0))
    else:
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(folder / "s"))
        bound.listen()
    bound.settimeout(0)  # non-blocking, as unix.sockets opens them
    return bound


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A listener of each family, as a launcher would pass it."""
    with closing(listen(request.param, tmp_path)) as bound:
        yield bound


@pytest.fixture
def unix_listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A listener that has a path."""
    with closing(listen("unix", tmp_path)) as bound:
        yield bound


def ask(listener: socket.socket) -> bytes:
    with closing(socket.socket(listener.family)) as connection:
        connection.settimeout(30)
        connection.connect(listener.getsockname())
        connection.sendall(b"hello\n")
        return connection.recv(100)


@pytest.mark.parametrize(
    ("flavour", "program"),
    [
        (ASYNCIO, "with_start_server"),
        (UVLOOP, "with_start_server"),
        (TRIO, "with_trio"),
        (PLAIN, "with_accept"),
    ],
    ids=["asyncio", "uvloop", "trio", "plain"],
)
def test_a_listener_is_served(listener: socket.socket, flavour: Flavour, program: str) -> None:
    """One way for TCP and unix on each runtime; a plain function may block in accept."""
    place = f"{PROGRAMS / 'serving.py'}:{program}"
    with start_program(flavour, place, ("web", listener.fileno())) as child:
        child.wait_for("ready")
        assert ask(listener) == b"hello\n"
        child.signal(SIGTERM)
        assert child.finish().status == 0


def fill_queue(listener: socket.socket, clients: ExitStack) -> int:
    """Knock until there is no room, or 300 are waiting; return how many are."""
    for count in range(300):
        client = clients.enter_context(closing(socket.socket(listener.family)))
        client.settimeout(0.2)
        try:
            client.connect(listener.getsockname())
        except OSError:
            return count
    return 300


@pytest.mark.parametrize(
    ("flavour", "program", "room"),
    [
        (ASYNCIO, "with_a_stuck_server", 300),
        (UVLOOP, "with_a_stuck_server", 300),
        (PLAIN, "with_a_stuck_loop_of_its_own", 101),
    ],
    ids=["asyncio", "uvloop", "another's loop"],
)
def test_the_queue_of_a_listener_is_not_cut(
    listener: socket.socket, flavour: Flavour, program: str, room: int
) -> None:
    """Asyncio makes it 100 for all who share it: the next one waits for a second at least."""
    listener.listen(1000)
    place = f"{PROGRAMS / 'serving.py'}:{program}"
    with start_program(flavour, place, ("web", listener.fileno())) as child, ExitStack() as clients:
        child.wait_for("stuck")  # it has called listen(2), or undone that
        assert fill_queue(listener, clients) == room


@pytest.mark.parametrize("flavour", [ASYNCIO, UVLOOP], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("program", ["with_start_server", "with_start_unix_server"])
def test_the_path_of_a_listener_stays(
    unix_listener: socket.socket, flavour: Flavour, program: str
) -> None:
    """Since 3.13 asyncio and uvloop unlink what they served: systemd's socket would be deaf."""
    place = f"{PROGRAMS / 'serving.py'}:{program}"
    with start_program(flavour, place, ("web", unix_listener.fileno())) as child:
        child.wait_for("ready")
        assert ask(unix_listener) == b"hello\n"
        child.signal(SIGTERM)
        assert child.finish().status == 0
    assert Path(unix_listener.getsockname()).exists()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="earlier Pythons unlink nothing")
def test_a_loop_that_is_not_the_services_removes_the_path(unix_listener: socket.socket) -> None:
    """Shows that the test above proves something."""
    place = f"{PROGRAMS / 'serving.py'}:with_a_loop_of_its_own"
    with start_program(PLAIN, place, ("web", unix_listener.fileno())) as child:
        child.wait_for("ready")
        child.signal(SIGTERM)
        assert child.finish().status == 0
    assert not Path(unix_listener.getsockname()).exists()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="earlier Pythons unlink nothing")
@pytest.mark.parametrize("flavour", [ASYNCIO, UVLOOP], ids=["asyncio", "uvloop"])
def test_a_path_that_the_program_made_is_still_removed(
    flavour: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is the program's own is asyncio's to tidy up, as everywhere else."""
    monkeypatch.chdir(tmp_path)
    place = f"{PROGRAMS / 'serving.py'}:with_an_own_path"
    with start_program(flavour, place) as child:
        child.wait_for("ready")
        assert (tmp_path / "own.sock").exists()
        child.signal(SIGTERM)
        assert child.finish().status == 0
    assert not (tmp_path / "own.sock").exists()


def test_listeners_are_found_by_name(tmp_path: Path) -> None:
    """Systemd gives two sockets of one unit the same name: none of them may be lost."""
    with (
        closing(listen("tcp", tmp_path)) as first,
        closing(listen("tcp", tmp_path)) as second,
        closing(listen("tcp", tmp_path)) as third,
    ):
        given = [("a", first.fileno()), ("b", second.fileno()), ("a", third.fileno())]
        place = f"{PROGRAMS / 'serving.py'}:takes_one_by_name"
        with start_program(ASYNCIO, place, *given) as child:
            ended = child.finish()
        assert ended.fact("found")["names"] == ["a", "b"]
        assert ended.fact("found")["port"] == second.getsockname()[1]
        assert ended.fact("several")["count"] == 2
        os.fstat(first.fileno())
