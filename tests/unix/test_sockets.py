"""A socket is opened once, on exactly what was asked, and nobody else's is disturbed.

The measured faults of other tools are here by name; each is shown to be one first.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from forkfirst import errors
from forkfirst.plan.listener import parse_address
from forkfirst.unix import sockets
from support.child_program import NOBODY, run_child
from support.open_sockets import OpenSockets, opened

__all__ = ["opened"]  # a fixture: pytest finds it here by its name

CLIENTS = 64


def _read_port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def _read_queue_limit(listener: socket.socket) -> int:
    """Return how many connections the kernel lets wait: tcpi_sacked of a listening socket."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    limit: int = struct.unpack_from("=8B24I", info)[8 + 5]
    return limit


# -- the faults of systemfd, by name ---------------------------------------------------------------


def test_fault_backlog_one_64_of_64_clients_connect(opened: OpenSockets) -> None:
    """The default backlog of systemfd is 1: of 64 clients that come at once, 2 connect."""
    listener = opened.keep(sockets.open_tcp("127.0.0.1", 0))
    clients = [opened.connect(listener.getsockname()) for _ in range(CLIENTS)]
    assert len(clients) == CLIENTS  # nobody has accepted one yet

    narrow = opened.keep(sockets.open_tcp("127.0.0.1", 0, backlog=1))
    assert _read_queue_limit(narrow) == 1  # the fault is possible, and only when asked for


def test_the_default_backlog_is_the_limit_of_the_kernel(opened: OpenSockets) -> None:
    """An operator who raised net.core.somaxconn meant this service too."""
    listener = opened.keep(sockets.open_tcp("127.0.0.1", 0))
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text("ascii"))
    assert _read_queue_limit(listener) == min(limit, 65535)


def test_fault_two_instances_on_one_port(opened: OpenSockets) -> None:
    """The tool systemfd sets SO_REUSEPORT: a second one takes half of the connections."""
    port = _read_port(opened.keep(sockets.open_tcp("127.0.0.1", 0)))
    with pytest.raises(errors.AddressInUseError, match=f"127.0.0.1:{port}"):
        sockets.open_tcp("127.0.0.1", port)

    shared = opened.keep(sockets.open_tcp("127.0.0.1", 0, reuseport=True))
    second = opened.keep(sockets.open_tcp("127.0.0.1", _read_port(shared), reuseport=True))
    assert second.getsockname() == shared.getsockname()  # the fault is possible when asked for


def test_fault_two_instances_on_one_udp_port(opened: OpenSockets) -> None:
    """With SO_REUSEADDR, the usual habit, the second one would get all datagrams."""
    first = opened.keep(sockets.open_udp("127.0.0.1", 0))
    with pytest.raises(errors.AddressInUseError, match=r"udp:127\.0\.0\.1"):
        sockets.open_udp("127.0.0.1", _read_port(first))

    habit = opened.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach())
    habit.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    habit.bind(("127.0.0.1", 0))
    second = opened.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach())
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    second.bind(habit.getsockname())  # the fault: not refused


# -- what is opened -------------------------------------------------------------------------------


def test_port_0_shows_what_was_chosen(opened: OpenSockets) -> None:
    """Otherwise nobody knows where the service is."""
    listener = opened.keep(sockets.open_tcp("127.0.0.1", 0))
    assert sockets.address_text(listener.fileno()) == f"127.0.0.1:{_read_port(listener)}"


@pytest.mark.parametrize("kind", ["tcp", "udp", "abstract", "path"])
def test_a_socket_is_close_on_exec_and_non_blocking(
    opened: OpenSockets, kind: str, tmp_path: Path
) -> None:
    """Only what is passed on purpose is passed; and no worker hangs in an accept it lost."""
    fd = {
        "tcp": lambda: sockets.open_tcp("127.0.0.1", 0),
        "udp": lambda: sockets.open_udp("127.0.0.1", 0),
        "abstract": lambda: sockets.open_abstract(str(tmp_path)),
        "path": lambda: sockets.open_unix(str(tmp_path / "s")),
    }[kind]()
    try:
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)
    finally:
        opened.keep(fd)


def test_every_address_is_ipv4_and_ipv6_by_one_socket(opened: OpenSockets) -> None:
    """One listener is one descriptor, and `*` means what it says."""
    listener = opened.keep(sockets.open_tcp("*", 0))
    port = _read_port(listener)
    assert sockets.address_text(listener.fileno()) == f"*:{port}"
    opened.connect(("127.0.0.1", port))
    opened.connect(("::1", port))


def test_an_ipv6_address_is_ipv6_only_unless_asked(opened: OpenSockets) -> None:
    """The sysctl net.ipv6.bindv6only must not decide who can reach a service."""
    alone = opened.keep(sockets.open_tcp("::", 0))
    with pytest.raises(ConnectionRefusedError):
        opened.connect(("127.0.0.1", _read_port(alone)))
    opened.connect(("::1", _read_port(alone)))
    assert sockets.address_text(alone.fileno()) == f"[::]:{_read_port(alone)}"

    both = opened.keep(sockets.open_tcp("::", 0, ipv6only=False))
    opened.connect(("127.0.0.1", _read_port(both)))


def test_a_name_is_bound_on_its_ipv4_address(opened: OpenSockets) -> None:
    """Every client of `localhost` tries 127.0.0.1; some never try ::1."""
    listener = opened.keep(sockets.open_tcp("localhost", 0))
    assert listener.family == socket.AF_INET


def test_options_reach_the_connections(opened: OpenSockets) -> None:
    """That is what one sets them on a listener for."""
    fd = sockets.open_tcp("127.0.0.1", 0, nodelay=True, keepalive=True)
    listener = opened.keep(fd)
    opened.connect(listener.getsockname())
    accepted = opened.keep(listener.accept()[0].detach())
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_deferaccept_is_set(opened: OpenSockets) -> None:
    """A connection without a byte does not wake a worker."""
    listener = opened.keep(sockets.open_tcp("127.0.0.1", 0, deferaccept=5))
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 5


def test_an_address_that_is_not_here_is_refused_unless_freebind(opened: OpenSockets) -> None:
    """A typing error, or a floating address: only the person knows which."""
    with pytest.raises(errors.AddressInUseError, match="not an address of this machine"):
        sockets.open_tcp("192.0.2.1", 0)
    listener = opened.keep(sockets.open_tcp("192.0.2.1", 0, freebind=True))
    assert listener.getsockname()[0] == "192.0.2.1"


def test_a_name_that_does_not_exist_is_said_so() -> None:
    """The name "invalid" is reserved never to exist (RFC 6761)."""
    with pytest.raises(
        errors.AddressInUseError, match=r"cannot listen on web\.invalid:80: no such"
    ):
        sockets.open_tcp("web.invalid", 80)


def test_a_failure_leaves_no_descriptor(opened: OpenSockets) -> None:
    """A launcher that tries and fails is still the clean process it was."""
    port = _read_port(opened.keep(sockets.open_tcp("127.0.0.1", 0)))
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(errors.AddressInUseError):
        sockets.open_tcp("127.0.0.1", port)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_an_abstract_name_is_taken_once(opened: OpenSockets, tmp_path: Path) -> None:
    """It is free again as soon as the last holder closes it."""
    name = f"{tmp_path} ?%"
    opened.keep(sockets.open_abstract(name))
    with pytest.raises(errors.AddressInUseError, match="this very process"):
        sockets.open_abstract(name)


@pytest.mark.skipif(not Path("/dev/vsock").exists(), reason="this kernel has no vsock")
def test_a_vsock_listens_on_any_context() -> None:
    """Port 0 means the same as everywhere."""
    fd = sockets.open_vsock(None, 0)
    facts = sockets.look_at(fd)
    os.close(fd)
    assert (facts.family, facts.listening) == ("vsock", True)
    assert facts.address == f"vsock:*:{facts.port}"


def test_the_address_of_each_kind_is_read_back_by_the_grammar(
    opened: OpenSockets, tmp_path: Path
) -> None:
    """The two rooms do not import each other; this is what holds their spelling together."""
    odd = str(tmp_path / "a b%41?\udcff\n=é")
    cases = [
        sockets.open_tcp("127.0.0.1", 0),
        sockets.open_tcp("*", 0),
        sockets.open_udp("::1", 0),
        sockets.open_unix(odd),
        sockets.open_unix(f"{odd}2", kind="seqpacket"),
        sockets.open_abstract(odd, kind="unixgram"),
    ]
    for fd in cases:
        opened.keep(fd)
        text, facts = sockets.address_text(fd), sockets.look_at(fd)
        listener = parse_address(text)
        assert str(listener) == text
        abstract = None if listener.abstract is None else f"@{listener.abstract}"
        assert (listener.port, listener.path or abstract) == (facts.port, facts.path)


# -- privileges and missing features --------------------------------------------------------------

LOW_PORT = """
import json, os, sys
from forkfirst import errors
from forkfirst.unix import ports, sockets
import pwd
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    sockets.open_tcp("127.0.0.1", int(sys.argv[1]))
except errors.PermissionRefusedError as error:
    print(json.dumps([str(error), error.hint]))
"""


@pytest.mark.real
def test_a_low_port_without_the_capability_is_refused_with_every_way_out() -> None:
    """A bare "permission denied" sends people to run the whole service as root."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    assert first > 1, "this machine lets everybody bind every port"
    message, hint = run_child(LOW_PORT, "1")
    assert "cannot listen on 127.0.0.1:1: user nobody may not bind ports below" in message
    for way in ("--user", "socket activation", "CAP_NET_BIND_SERVICE", "port_start=1"):
        assert way in hint
    assert NOBODY == 65534


EVERYWHERE = """
from forkfirst.unix import sockets
print(sockets.address_text(sockets.open_tcp("*", 0)))
"""


@pytest.mark.real
def test_every_address_is_ipv4_where_the_kernel_has_no_ipv6(tmp_path: Path) -> None:
    """`ipv6.disable=1` is a common hardening; strace answers as that kernel would."""
    log = tmp_path / "calls"
    inject = "inject=socket:error=EAFNOSUPPORT:when=1"
    tracer = ["strace", "-o", str(log), "-e", "trace=socket", "-e", inject]
    done = subprocess.run(
        [*tracer, sys.executable, "-c", EVERYWHERE],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "AF_INET6" in log.read_text().splitlines()[0]
    assert done.stdout.startswith("0.0.0.0:")
