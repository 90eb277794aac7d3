"""Runs a control server in a thread of this process, and talks to it below the client."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forkfirst.control.server import Server, open_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkfirst.control.server import Answers

PATIENCE = 30.0
"""Seconds after which a test gives up; nothing is ever expected to take so long."""


def echo(request: Any) -> dict[str, Any]:
    return {"text": request.get("text")}


@contextmanager
def make_path(name: str = "control.sock") -> Iterator[str]:
    """Give a path in a new directory, short enough for a socket's address."""
    with tempfile.TemporaryDirectory(prefix="ff-") as directory:
        yield f"{directory}/{name}"


@contextmanager
def serving(answers: Answers | None = None, **options: Any) -> Iterator[str]:
    """Serve *answers*, or "echo", to this user, and give the path; leave nothing behind."""
    descriptors = count_descriptors()
    options.setdefault("allowed_uids", frozenset({os.getuid()}))
    with make_path() as path:
        server = Server(open_socket(path), {"echo": echo, **(answers or {})}, **options)
        server.start()
        try:
            yield path
        finally:
            assert server.stop(seconds=PATIENCE)
    assert [each.name for each in threading.enumerate() if each.name == "forkfirst-control"] == []
    assert count_descriptors() == descriptors


@contextmanager
def connecting(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        yield connection


def read_until_end(connection: socket.socket) -> bytes:
    """Return all that comes until the other side hangs up, however it does that."""
    chunks = []
    try:
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:  # it did not read all that it was sent
        pass
    return b"".join(chunks)


def read_answer(connection: socket.socket) -> dict[str, Any]:
    """Return the one answer that is to come now."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = connection.recv(65536)
        assert chunk, f"hung up after {line!r}"
        line += chunk
    answer = json.loads(line)
    assert isinstance(answer, dict)
    return answer


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
