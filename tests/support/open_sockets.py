"""Descriptors that a test opened, closed when it ends, whatever happens."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OpenSockets:
    """Keeps what it is given until the test is over."""

    def __init__(self) -> None:
        self._kept: list[socket.socket] = []

    def keep(self, fd: int) -> socket.socket:
        """Return *fd* as a blocking stream socket that is closed at the end."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(True)  # noqa: FBT003 - the name says what
        sock.settimeout(10)
        self._kept.append(sock)
        return sock

    def connect(self, address: str | tuple[str, int]) -> socket.socket:
        """Return a client connected to *address*; it is blocking, with ten seconds to connect."""
        if isinstance(address, tuple):
            client = socket.create_connection(address, timeout=10)
        else:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(10)
            client.connect(address)
        self._kept.append(client)
        return client

    def close(self) -> None:
        """Close everything."""
        for sock in self._kept:
            sock.close()


@pytest.fixture
def opened() -> Iterator[OpenSockets]:
    kept = OpenSockets()
    yield kept
    kept.close()


def make_stale(path: Path, kind: int = socket.SOCK_STREAM) -> None:
    """Leave a socket at *path* that nobody serves."""
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(os.fspath(path))
