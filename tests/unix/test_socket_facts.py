"""A passed descriptor is trusted only after it was looked at."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from forkfirst.errors import ConfigError
from forkfirst.unix import sockets
from support.open_sockets import OpenSockets, opened

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["opened"]  # a fixture: pytest finds it here by its name


def test_a_listening_socket_is_described(opened: OpenSockets) -> None:
    """All that an operator, a status or a check asks about it."""
    fd = sockets.open_tcp("127.0.0.1", 0)
    port = opened.keep(fd).getsockname()[1]
    facts = sockets.look_at(fd)
    assert facts == sockets.SocketFacts(
        family="inet",
        type="stream",
        listening=True,
        connected=False,
        address=f"127.0.0.1:{port}",
        port=port,
        path=None,
        inode=os.fstat(fd).st_ino,
    )


def test_looking_changes_nothing(opened: OpenSockets) -> None:
    """The descriptor is somebody else's, and its flags are shared with whoever passed it."""
    fd = sockets.open_tcp("127.0.0.1", 0)
    opened.keep(fd)
    for inheritable in (True, False):
        for blocking in (True, False):
            os.set_inheritable(fd, inheritable)
            os.set_blocking(fd, blocking)
            sockets.look_at(fd)
            assert (os.get_inheritable(fd), os.get_blocking(fd)) == (inheritable, blocking)


def test_a_unix_pair_has_no_address() -> None:
    """It was never bound; there is nothing to print."""
    left, right = socket.socketpair()
    with left, right:
        facts = sockets.look_at(left.fileno())
    assert (facts.family, facts.address, facts.path, facts.connected) == ("unix", "", None, True)


def test_an_abstract_name_and_a_path_are_told_apart(opened: OpenSockets, tmp_path: Path) -> None:
    """`@x` is not `/x`."""
    path, name = str(tmp_path / "s"), f"{tmp_path}?"
    fd = sockets.open_unix(path)
    opened.keep(fd)
    assert (sockets.look_at(fd).path, sockets.address_text(fd)) == (path, f"unix:{path}")
    fd = sockets.open_abstract(name)
    opened.keep(fd)
    assert sockets.look_at(fd).path == f"@{name}"
    assert sockets.address_text(fd) == f"unix:@{tmp_path}%3F"


def test_the_right_socket_is_adopted_and_becomes_close_on_exec(
    opened: OpenSockets, tmp_path: Path
) -> None:
    """A child that inherits a listener by accident keeps the port after the service is gone."""
    fd = sockets.open_tcp("127.0.0.1", 0)
    port = opened.keep(fd).getsockname()[1]
    os.set_inheritable(fd, True)  # noqa: FBT003 - the name says what
    sockets.adopt(fd, family="inet", type="stream", listening=True, port=port)
    assert not os.get_inheritable(fd)
    sockets.adopt(fd, family="ip")
    sockets.adopt(fd)

    path = str(tmp_path / "s")
    fd = sockets.open_unix(path, kind="unixgram")
    opened.keep(fd)
    sockets.adopt(fd, family="unix", type="dgram", listening=False, path=path)


@pytest.mark.parametrize(
    ("expected", "why"),
    [
        ({"family": "unix"}, "a listening inet stream socket on 127.0.0.1:.*, not of family unix"),
        ({"family": "inet6"}, "not of family inet6"),
        ({"type": "dgram"}, "not of type dgram"),
        ({"listening": False}, "and listens"),
        ({"port": 1}, "not on port 1"),
        ({"path": "/run/x"}, "not on path /run/x"),
    ],
)
def test_a_wrong_socket_is_refused_and_left_as_it_was(
    opened: OpenSockets, expected: dict[str, object], why: str
) -> None:
    """The message says what it is and what was wanted: two units got mixed up."""
    fd = sockets.open_tcp("127.0.0.1", 0)
    opened.keep(fd)
    os.set_inheritable(fd, True)  # noqa: FBT003 - the name says what
    with pytest.raises(ConfigError, match=why):
        sockets.adopt(fd, **expected)  # type: ignore[arg-type]
    assert os.get_inheritable(fd)


def test_fault_a_connected_socket_is_not_a_listener(opened: OpenSockets) -> None:
    """The crate listenfd accepts one, and the first accept(2) of the service fails."""
    listener = opened.keep(sockets.open_tcp("127.0.0.1", 0))
    client = opened.connect(listener.getsockname())
    with pytest.raises(ConfigError, match=r"a connected inet stream socket .* does not listen"):
        sockets.adopt(client.fileno(), listening=True)


def test_fault_a_socket_that_does_not_listen_is_not_a_listener() -> None:
    """The crate listenfd accepts one that is only bound."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match=r"it is an inet stream socket .* does not listen"):
            sockets.adopt(bound.fileno(), listening=True)


def test_what_is_not_a_socket_is_refused(tmp_path: Path) -> None:
    """LISTEN_FDS may be a lie, or an accident of an older parent."""
    with (tmp_path / "file").open("w") as file:
        fd = file.fileno()
        with pytest.raises(ConfigError, match=f"cannot take descriptor {fd}: it is not a socket"):
            sockets.adopt(fd)
    with pytest.raises(ConfigError, match="it is not open"):
        sockets.adopt(fd)
