"""The example's service in a test: what it answers is written anew, and asked for, word by word."""

from __future__ import annotations

import itertools
import socket
import time
from typing import TYPE_CHECKING, Any

from support.load import REQUEST
from support.service_home import PATIENCE
from support.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from support.service_home import Done, Home

HELLO = (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")
FAILS = "async def main(context):\n    raise RuntimeError('no database today')\n"
HANGS = "import asyncio\nasync def main(context):\n    await asyncio.sleep(3600)\n"
_COUNT = itertools.count()


def write(home: Home, word: str, **changes: str) -> Path:
    """Write the example's program so that it answers *word*, of five letters."""
    text = HELLO.replace("hello\\n", f"{word}\\n")
    # Never of the same size: Python takes a file of the same second and size for the same file.
    text += f"# {next(_COUNT) * 'x'}\n"
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return home.program("app.py", text)


def write_text(home: Home, text: str) -> None:
    """Write another program in its place."""
    home.program("app.py", text)


def reload(home: Home, *flags: object) -> Done:
    """Give the command, and return how it ended."""
    return home.forkfirst("reload", "app", *flags)


def ask(address: tuple[str, int] | str) -> bytes:
    """Ask over a connection of its own, and return the word."""
    with connect(address) as connection:
        connection.sendall(REQUEST)
        return read_word(connection)


def connect(address: tuple[str, int] | str) -> socket.socket:
    """Return a connection to *address*."""
    connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    connection.settimeout(PATIENCE)
    connection.connect(address)
    return connection


def read_word(connection: socket.socket) -> bytes:
    """Return what one answer on *connection* says."""
    octets = b""
    while b"\r\n\r\n" not in octets or not octets.endswith(b"\n"):
        more = connection.recv(4096)
        assert more, "the connection was cut"
        octets += more
    return octets.rpartition(b"\r\n\r\n")[2].strip()


def wait_until(home: Home, holds: Any) -> dict[str, Any]:
    """Ask for the status until it *holds*, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not holds(found := home.status("app")):
        assert time.monotonic() < deadline, found
    return found
