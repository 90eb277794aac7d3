"""Who is in the way has a name, where this user may know it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from forkfirst.unix import ports, sockets
from support.child_program import run_child
from support.open_sockets import OpenSockets, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["opened"]  # a fixture: pytest finds it here by its name

HOLDER = """
import sys
from forkfirst.unix import sockets
fd = sockets.open_unix(sys.argv[1]) if len(sys.argv) > 1 else sockets.open_tcp("127.0.0.1", 0)
print(sockets.look_at(fd).port, flush=True)
sys.stdin.read()
"""


class _Child:
    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()


@pytest.fixture
def child() -> Iterator[_Child]:
    started = _Child()
    yield started
    started.process.communicate(timeout=30)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "*", "localhost"])  # noqa: S104
def test_a_port_in_use_names_its_holder(child: _Child, host: str) -> None:
    """The next thing anybody types is `ss -ltnp`."""
    name = ports.find_holder("tcp", int(child.port), host="127.0.0.1")
    assert name is not None
    with pytest.raises(errors.AddressInUseError) as caught:
        sockets.open_tcp(host, int(child.port))
    assert str(caught.value) == (
        f"cannot listen on {host}:{child.port}: "
        f"address in use by pid {child.process.pid} ({name.command})"
    )
    assert name.command.startswith("python")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.exit_status == 69


def test_a_socket_on_another_address_is_not_the_holder(opened: OpenSockets) -> None:
    """The same port on 127.0.0.2 is in nobody's way."""
    port = opened.keep(sockets.open_tcp("127.0.0.2", 0)).getsockname()[1]
    assert ports.find_holder("tcp", port, host="127.0.0.1") is None
    assert ports.find_holder("tcp", port, host="127.0.0.2") is not None
    assert ports.find_holder("tcp", port, host="0.0.0.0") is not None  # noqa: S104 - it meets all
    assert ports.find_holder("udp", port, host="127.0.0.2") is None


def test_a_unix_path_in_use_names_its_holder(tmp_path: Path) -> None:
    """As for a port."""
    path = str(tmp_path / "a b")
    holder = _Child(path)
    try:
        with pytest.raises(errors.AddressInUseError) as caught:
            sockets.open_unix(path)
    finally:
        holder.process.communicate(timeout=30)
    shown = path.replace(" ", "%20")
    assert f"unix:{shown}: address in use by pid {holder.process.pid} (" in str(caught.value)


def test_a_udp_port_in_use_names_its_holder(opened: OpenSockets) -> None:
    """UDP sockets do not listen; the kernel's table is another one."""
    port = opened.keep(sockets.open_udp("::1", 0)).getsockname()[1]
    with pytest.raises(errors.AddressInUseError, match="by this very process, pid"):
        sockets.open_udp("::1", port)


UNSEEN = """
import json, os, sys
from forkfirst import errors
from forkfirst.unix import ports, sockets
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    sockets.open_tcp("127.0.0.1", int(sys.argv[1]))
except errors.AddressInUseError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.real
def test_a_holder_that_may_not_be_seen_is_another_users(child: _Child) -> None:
    """The kernel tells everybody whose the socket is, and only the owner in which process."""
    message = run_child(UNSEEN, child.port)
    assert message.endswith("address in use by another user's process (uid 0)")


def test_a_socket_of_systemd_comes_with_the_way_to_take_it() -> None:
    """The commonest reason of all on a machine with a socket unit: it was meant for us."""
    holder = ports.Holder(pid=1, command="systemd", uid=0)
    taken = OSError(errno.EADDRINUSE, "Address already in use")
    refusal = ports.make_refusal("127.0.0.1:80", taken, holder=holder)
    assert isinstance(refusal, errors.AddressInUseError)
    assert "systemd:NAME" in refusal.hint


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EADDRINUSE, errors.AddressInUseError),
        (errno.EADDRNOTAVAIL, errors.AddressInUseError),
        (errno.EAFNOSUPPORT, errors.AddressInUseError),
        (errno.EACCES, errors.PermissionRefusedError),
        (errno.EMFILE, errors.SystemRefusedError),
        (errno.ENOSPC, errors.CannotCreateError),
        (errno.EROFS, errors.CannotCreateError),
    ],
)
def test_each_refusal_says_who_must_act(code: int, expected: type[errors.ForkfirstError]) -> None:
    """The exit status follows from it."""
    refusal = ports.make_refusal("8000", OSError(code, os.strerror(code)))
    assert type(refusal) is expected
    assert str(refusal).startswith("cannot listen on 8000: ")


def test_an_unresolved_name_is_not_mistaken_for_an_errno() -> None:
    """The numbers of getaddrinfo are another set."""
    refusal = ports.make_refusal("x:1", socket.gaierror(socket.EAI_NONAME, "unknown"))
    assert str(refusal) == "cannot listen on x:1: no such host: unknown"
