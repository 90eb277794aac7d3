"""Sockets to listen on: opened, looked at, adopted. They leave here as plain descriptors.

Every socket opened here is close-on-exec, and non-blocking: O_NONBLOCK belongs to the open socket
and not to the descriptor, so all processes that share a listener share it, and a blocking one lets
a worker hang in accept(2) whose connection another worker took. Who passes a socket to a command
that expects a blocking one, as systemd does, sets that on purpose.

Nothing here calls shutdown(2): it would end the listener in every process that holds it.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

from forkfirst.errors import ConfigError
from forkfirst.unix.socket_facts import (
    SocketFacts,
    address_text,
    adopt,
    describe_internet,
    escape,
    look_at,
)
from forkfirst.unix.socket_paths import (
    LARGEST_BACKLOG,
    TYPES,
    look_up_unix_path,
    open_unix,
    remove_unix_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    # family, what bind(2) gets, and IPV6_V6ONLY
    Target: TypeAlias = tuple[int, tuple[Any, ...], bool]
    Option: TypeAlias = tuple[int, int, int]  # level, name, value

__all__ = [
    "SocketFacts",
    "address_text",
    "adopt",
    "look_at",
    "look_up_unix_path",
    "open_abstract",
    "open_tcp",
    "open_udp",
    "open_unix",
    "open_vsock",
    "remove_unix_path",
]

_IP_FREEBIND = 15  # <linux/in.h>; the socket module does not have it
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def open_tcp(  # noqa: PLR0913 - the options of a listener
    host: str,
    port: int,
    *,
    scope: str | None = None,
    backlog: int | None = None,
    ipv6only: bool | None = None,
    reuseaddr: bool = True,
    reuseport: bool | None = None,
    joinable: bool = False,
    nodelay: bool | None = None,
    keepalive: bool | None = None,
    deferaccept: int | None = None,
    freebind: bool | None = None,
) -> int:
    """Return a TCP socket that listens on *host* (an address, a name, or `*`) and *port*.

    `*` is one socket for IPv4 and IPv6; where the kernel has no IPv6, it is IPv4. A name is looked
    up, numbers first; of several addresses the first IPv4 one is taken. A None option is the
    default: the kernel's greatest backlog, IPv6 apart from IPv4, and otherwise off. SO_REUSEADDR
    is set unless *reuseaddr* is false: connections of a predecessor in TIME_WAIT do not matter.
    With *joinable* nobody else may be there, as without *reuseport*, but sockets may be added later
    by `reuseport.join`.

    Raises:
        AddressInUseError: Somebody listens there, or the address is not this machine's.
        PermissionRefusedError: The port is below `net.ipv4.ip_unprivileged_port_start`.
        ConfigError: This system lacks an option.
        SystemRefusedError: No descriptors or memory.

    Source: socket(7), tcp(7), ipv6(7), listen(2).
    """
    options: list[Option] = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuseaddr)]
    if nodelay is not None:
        options.append((socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay))
    if keepalive is not None:
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, keepalive))
    if deferaccept is not None:
        options.append((socket.IPPROTO_TCP, _require("TCP_DEFER_ACCEPT"), deferaccept))
    options += _list_shared_options(reuseport, freebind)
    later = [(socket.SOL_SOCKET, _require("SO_REUSEPORT"), 1)] if joinable else []
    return _open_internet("tcp", host, port, scope, ipv6only, options, backlog, later)


def open_udp(  # noqa: PLR0913 - the options of a listener
    host: str,
    port: int,
    *,
    scope: str | None = None,
    ipv6only: bool | None = None,
    reuseport: bool | None = None,
    freebind: bool | None = None,
) -> int:
    """Return a UDP socket bound to *host* and *port*; as `open_tcp`, but without SO_REUSEADDR.

    For UDP that option would let a second process bind the same port and take the datagrams.

    Raises:
        AddressInUseError, PermissionRefusedError, ConfigError, SystemRefusedError: As `open_tcp`.

    Source: udp(7), socket(7).
    """
    options = _list_shared_options(reuseport, freebind)
    return _open_internet("udp", host, port, scope, ipv6only, options, None)


def open_abstract(name: str, *, kind: str = "unix", backlog: int | None = None) -> int:
    """Return a unix socket with the abstract *name* (without its `@`), listening if it connects.

    It has no file, so no permissions: whoever is in this network namespace may connect.

    Raises:
        AddressInUseError: The name is taken.
        CannotCreateError: This system has no abstract names.

    Source: unix(7).
    """
    address = f"{kind}:@{escape(name)}"
    try:
        with socket.socket(socket.AF_UNIX, TYPES[kind]) as endpoint:
            endpoint.bind(b"\0" + os.fsencode(name))
            return _finish(endpoint, None if kind == "unixgram" else backlog or LARGEST_BACKLOG)
    except OSError as error:
        from forkfirst.unix import ports  # noqa: PLC0415 - only for a refusal

        holder = ports.find_path_holder(f"@{name}") if error.errno == errno.EADDRINUSE else None
        raise ports.make_refusal(address, error, holder=holder) from error


def open_vsock(cid: int | None, port: int, *, backlog: int | None = None) -> int:
    """Return a stream socket that listens on *port* of the context *cid*, of any if None.

    Port 0 lets the kernel choose, as everywhere.

    Raises:
        AddressInUseError: The port is taken, or the context is not this machine's.
        ConfigError: This system has no vsock.

    Source: vsock(7).
    """
    family = _require("AF_VSOCK")
    any_number: int = _require("VMADDR_CID_ANY")  # 2**32 - 1, for ports as well
    address = f"vsock:{'*' if cid is None else cid}:{port}"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as endpoint:
            endpoint.bind((any_number if cid is None else cid, port or any_number))
            return _finish(endpoint, backlog or LARGEST_BACKLOG)
    except OSError as error:
        from forkfirst.unix import ports  # noqa: PLC0415 - only for a refusal

        raise ports.make_refusal(address, error) from error


def _open_internet(  # noqa: PLR0913, PLR0917 - what its two callers have in common
    kind: str,
    host: str,
    port: int,
    scope: str | None,
    ipv6only: bool | None,  # noqa: FBT001 - as above
    options: list[Option],
    backlog: int | None,
    later: Sequence[Option] = (),
) -> int:
    address = describe_internet(kind, host, scope, port)
    bound = ""
    try:
        for target in _list_targets(kind, host, port, scope, ipv6only):
            family, sockaddr, _ = target
            bound = str(sockaddr[0])
            try:
                return _open_target(kind, target, options, backlog, later)
            except OSError as error:
                # "*" on a kernel without IPv6: every address there is, is an IPv4 one
                if host != "*" or family == socket.AF_INET or error.errno not in _NO_IPV6:
                    raise
        raise AssertionError  # the last target is always of IPv4, or the only one
    except OSError as error:
        from forkfirst.unix import ports  # noqa: PLC0415 - only for a refusal

        taken = error.errno == errno.EADDRINUSE
        holder = ports.find_holder(kind, port, host=bound) if taken else None
        raise ports.make_refusal(address, error, holder=holder, port=port) from error


def _list_targets(
    kind: str,
    host: str,
    port: int,
    scope: str | None,
    ipv6only: bool | None,  # noqa: FBT001 - as _open_internet
) -> list[Target]:
    """Return what to bind: one target, or for `*` a second choice."""
    if host == "*":
        every: list[Target] = [(socket.AF_INET6, ("::", port), False)]
        every.append((socket.AF_INET, ("0.0.0.0", port), False))  # noqa: S104 - "*" asks for it
        return every
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    # As bytes: for a str, Python loads its IDNA tables (2 ms), which an address has no use for.
    name = (f"{host}%{scope}" if scope else host).encode()
    flags = socket.AI_PASSIVE | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(name, port, type=type_, flags=flags | socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = socket.getaddrinfo(name, port, type=type_, flags=flags)
    # The order that getaddrinfo gives is one of destinations (RFC 6724); for a name like
    # "localhost" it is IPv6 first, and a client that tries 127.0.0.1 would find nobody.
    family, _, _, _, target = min(found, key=lambda one: one[0] != socket.AF_INET)
    return [(family, target, ipv6only is not False)]


def _open_target(
    kind: str,
    target: Target,
    options: Sequence[Option],
    backlog: int | None,
    later: Sequence[Option],
) -> int:
    family, sockaddr, ipv6only = target
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, type_) as endpoint:
        for level, option, value in options:
            endpoint.setsockopt(level, option, value)
        if family == socket.AF_INET6:  # said either way: net.ipv6.bindv6only changes the default
            endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6only)
        endpoint.bind(sockaddr)
        for level, option, value in later:  # after bind(2), which so refuses where somebody is
            endpoint.setsockopt(level, option, value)
        return _finish(endpoint, (backlog or LARGEST_BACKLOG) if kind == "tcp" else None)


def _finish(endpoint: socket.socket, backlog: int | None) -> int:
    """Return the descriptor of *endpoint*, which listens if there is a *backlog*."""
    if backlog is not None:
        endpoint.listen(backlog)
    endpoint.setblocking(False)  # noqa: FBT003 - the name says what
    return endpoint.detach()


def _list_shared_options(
    reuseport: bool | None,  # noqa: FBT001 - an option that may be unsaid
    freebind: bool | None,  # noqa: FBT001 - an option that may be unsaid
) -> list[Option]:
    options: list[Option] = []
    if reuseport:
        options.append((socket.SOL_SOCKET, _require("SO_REUSEPORT"), 1))
    if freebind:
        if not sys.platform.startswith("linux"):
            _require("IP_FREEBIND")
        options.append((socket.IPPROTO_IP, _IP_FREEBIND, 1))  # of IPv6 sockets as well
    return options


def _require(name: str) -> int:
    """Return a constant of the socket module that not every system has."""
    number: int | None = getattr(socket, name, None)
    if number is None:
        message = f"cannot listen as asked: this system has no {name}"
        raise ConfigError(message)
    return number
