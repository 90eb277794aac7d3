"""What a reload means for whoever is connected: docs/explanation/reload.md, line by line.

The program is examples/hello.py: asyncio and nothing else, with the context.
"""

from __future__ import annotations

import itertools
import select
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as open_websocket

from support.load import REQUEST, Load
from support.service_home import PATIENCE, PROGRAMS
from support.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from support.service_home import Home

HELLO = (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")
ANSWERS = "                writer.write(LAST_ANSWER if last else ANSWER)\n"
BUSY = """\
                self.context.status('busy')
                import os
                while not os.path.exists({!r}):
                    await asyncio.sleep(0.01)
"""
_IDLE = 10_000
_COUNT = itertools.count()


def _write(home: Home, word: str, busy_until: Path | None = None) -> Path:
    """Write the example; *busy_until* is a file whose appearance ends each request."""
    text = HELLO.replace("hello\\n", f"{word}\\n") + f"# {next(_COUNT) * 'x'}\n"
    if busy_until is not None:
        assert ANSWERS in text
        text = text.replace(ANSWERS, BUSY.format(str(busy_until)) + ANSWERS)
    return home.program("app.py", text)


def _start(home: Home, program: Path, *flags: object) -> tuple[str, int]:
    home.start(f"{program}:main", "--listen", "web=127.0.0.1:0", "--workers", 1, *flags)
    address = home.address("app")
    assert isinstance(address, tuple)
    return address


def _reload(home: Home, word: str = "other") -> None:
    _write(home, word)
    done = home.forkfirst("reload", "app")
    assert done.status == 0, done


def _connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE)


def _read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of one answer."""
    octets = b""
    while b"\r\n\r\n" not in octets or not octets.endswith(b"\n"):
        more = connection.recv(4096)
        assert more, f"the connection was cut after {octets!r}"
        octets += more
    head, _, body = octets.partition(b"\r\n\r\n")
    return head, body.strip()


def _ask(connection: socket.socket) -> tuple[bytes, bytes]:
    connection.sendall(REQUEST)
    return _read_answer(connection)


def _wait_until(home: Home, holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds(found := home.status("app")):
        assert time.monotonic() < deadline, found


def test_a_kept_connection_is_told_by_its_next_answer(home: Home) -> None:
    """It was accepted by the old code, so that answers, once more; then the client comes anew."""
    address = _start(home, _write(home, "first"))
    with _connect(address) as kept:
        head, word = _ask(kept)
        assert (word, b"Connection: close" in head) == (b"first", False)
        _reload(home)
        head, word = _ask(kept)
        assert (word, b"Connection: close" in head) == (b"first", True)
        assert kept.recv(1) == b""
    with _connect(address) as fresh:
        assert _ask(fresh)[1] == b"other"


def test_a_long_request_is_answered_within_the_grace_period(home: Home) -> None:
    """And nobody waits for it: the new code serves at once, the reload says so at once."""
    done = home.directory / "done"
    address = _start(home, _write(home, "first", busy_until=done), "--grace-period", 60)
    with _connect(address) as waits:
        waits.sendall(REQUEST)
        _wait_until(home, lambda found: found["status"] == "busy")
        _reload(home)
        with _connect(address) as other:
            assert _ask(other)[1] == b"other"
        done.touch()
        assert _read_answer(waits)[1] == b"first"
    _wait_until(home, lambda found: len(found["workers"]) == 1)


def test_a_request_longer_than_the_grace_period_is_cut_off_then(home: Home) -> None:
    """The end of the connection without an answer, no sooner; the log says why."""
    never = home.directory / "never"
    address = _start(home, _write(home, "first", busy_until=never), "--grace-period", 0.5)
    with _connect(address) as waits:
        waits.sendall(REQUEST)
        _wait_until(home, lambda found: found["status"] == "busy")
        began = time.monotonic()
        _reload(home)
        assert waits.recv(1) == b"", "closed in order, not reset"
        assert time.monotonic() - began >= 0.5
    _wait_until(home, lambda found: len(found["workers"]) == 1)
    assert "the grace period of 0.5 s ran out" in home.log("app")


def test_a_request_that_is_half_sent_and_never_finished_is_given_up(home: Home) -> None:
    """Who sends one octet an hour must not keep old code alive."""
    address = _start(home, _write(home, "first"))
    with _connect(address) as slow:
        _ask(slow)
        slow.sendall(REQUEST[:10])
        _reload(home)
        assert slow.recv(1) == b""
    _wait_until(home, lambda found: len(found["workers"]) == 1)


def test_a_websocket_is_told_to_go_away(home: Home) -> None:
    """Status 1001, for which every client library has a word; its next connection has new code."""
    text = (PROGRAMS / "websocket.py").read_text()
    host, port = _start(home, home.program("app.py", text))
    where = f"ws://{host}:{port}"
    with open_websocket(where, open_timeout=PATIENCE) as held:
        held.send("a")
        assert held.recv(PATIENCE) == "first heard a"
        home.program("app.py", text.replace("first", "second"))
        assert home.forkfirst("reload", "app").status == 0
        with pytest.raises(ConnectionClosed) as ended:
            held.recv(PATIENCE)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1001
    with open_websocket(where, open_timeout=PATIENCE) as fresh:
        fresh.send("b")
        assert fresh.recv(PATIENCE) == "second heard b"
    _wait_until(home, lambda found: len(found["workers"]) == 1)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ten_thousand_idle_connections_are_closed_and_nobody_notices(home: Home) -> None:
    """Each in order and within seconds, and who asks meanwhile is answered."""
    address = _start(home, _write(home, "first"))
    with ExitStack() as stack:
        idle = [stack.enter_context(_connect(address)) for _ in range(_IDLE)]
        assert _ask(idle[-1])[1] == b"first", "the last is accepted, and so are all before"
        with Load(address) as load:
            _reload(home)
            ends = _read_ends(idle)
            load.wait_for_more(200)
    assert ends == {b""}
    assert load.failures == []
    assert load.words[0] == b"first\n"
    assert load.words[-1] == b"other\n"
    _wait_until(home, lambda found: len(found["workers"]) == 1)


def _read_ends(connections: list[socket.socket]) -> set[object]:
    """Return what comes of each: no octets for an end in order, or the error."""
    poll = select.poll()
    by_fd = {one.fileno(): one for one in connections}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    found: set[object] = set()
    deadline = time.monotonic() + PATIENCE
    while by_fd:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        assert ready, f"{len(by_fd)} are still open"
        for fd, _ in ready:
            poll.unregister(fd)
            try:
                found.add(by_fd.pop(fd).recv(1))
            except OSError as error:
                found.add(repr(error))
    return found
