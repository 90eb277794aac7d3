"""Applications behind others' servers: which there are, and how they are asked."""

from __future__ import annotations

import importlib.util
import itertools
import socket
from typing import TYPE_CHECKING

import pytest

from support.service_home import PATIENCE, PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Done, Home

ASGI = (PROGRAMS / "asgi.py").read_text(encoding="utf-8")
LIGHT = ("uvicorn asyncio", "hypercorn asyncio")
"""Servers of the test group, each with a runtime."""

HEAVY = (
    *("uvicorn uvloop", "hypercorn uvloop", "hypercorn trio"),
    *("granian asyncio", "granian uvloop"),
)
_COUNT = itertools.count()


def need(name: str) -> None:
    """Skip the test where the module *name* is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: see tests/serve/requirements.txt")


def write(home: Home, word: str = "first", **changes: str) -> None:
    """Write app.py so that it answers *word*, of five letters."""
    text = ASGI.replace('b"first', f'b"{word}')
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    # Never of the same size: Python takes a file of the same second and size for the same file.
    home.program("app.py", text + "#" * next(_COUNT))


def start(home: Home, how: str, *flags: object, name: str = "app", word: str = "first") -> Done:
    """Start what app.py calls *name* with *how*: a server and a runtime."""
    server, runtime = how.split()
    need(server)
    write(home, word)
    listen = () if "--listen" in flags else ("--listen", "web=127.0.0.1:0")
    words = ("--name", "app", "--serve", server, "--runtime", runtime, *listen, *flags)
    return home.forkfirst("start", f"app.py:{name}", *words)


def begin(home: Home, how: str, *flags: object, name: str = "app") -> None:
    """Start it; it must become ready."""
    done = start(home, how, *flags, name=name)
    assert (done.status, done.err) == (0, ""), done


def connect(address: tuple[str, int] | str) -> socket.socket:
    """Return a connection to *address*."""
    connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def ask(address: tuple[str, int] | str, path: str = "/") -> bytes:
    """Ask for *path* over a connection of its own; return what it says, of one line."""
    with connect(address) as connection:
        send(connection, path)
        return read(connection)[1]


def send(connection: socket.socket, path: str, *headers: str) -> None:
    """Send a request for *path*."""
    head = (f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", "")
    connection.sendall("\r\n".join(head).encode())


def read(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head, in small letters, and the line of one answer."""
    octets = b""
    while not octets.partition(b"\r\n\r\n")[2].endswith(b"\n"):
        more = connection.recv(4096)
        assert more, "the connection was cut"
        octets += more
    head, _, body = octets.partition(b"\r\n\r\n")
    return head.lower(), body.strip()


def open_websocket(address: tuple[str, int] | str, path: str = "/") -> socket.socket:
    """Return a connection that has become a websocket."""
    connection = connect(address)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    send(
        connection,
        path,
        "Upgrade: websocket",
        "Connection: Upgrade",
        key,
        "Sec-WebSocket-Version: 13",
    )
    octets = b""
    while not octets.endswith(b"\r\n\r\n"):
        octets += connection.recv(1)
    assert b" 101 " in octets.partition(b"\r\n")[0]
    return connection


def read_goodbye(connection: socket.socket) -> int:
    """Return the status with which the server closes a websocket, and answer as RFC 6455 wants."""
    octets = b""
    while len(octets) < 4:
        more = connection.recv(4096)
        assert more, "the websocket was cut"
        octets += more
    assert octets[0] == 0x88, octets
    connection.sendall(b"\x88\x82\0\0\0\0" + octets[2:4])
    return int.from_bytes(octets[2:4])
