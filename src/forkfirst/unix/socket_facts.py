"""What a descriptor really is: looked at, described, and checked before it is trusted."""

from __future__ import annotations

import errno
import os
import socket

from forkfirst.errors import ConfigError
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FAMILIES = {
    socket.AF_INET: "inet",
    socket.AF_INET6: "inet6",
    socket.AF_UNIX: "unix",
    getattr(socket, "AF_VSOCK", None): "vsock",
}
_TYPE_NAMES = {
    socket.SOCK_STREAM: "stream",
    socket.SOCK_DGRAM: "dgram",
    socket.SOCK_SEQPACKET: "seqpacket",
}


class SocketFacts(Value):
    """What a descriptor really is, as the kernel tells.

    Attributes:
        family: "inet", "inet6", "unix", "vsock" or "other".
        type: "stream", "dgram", "seqpacket" or "other".
        listening: Whether it accepts connections.
        connected: Whether it has a peer.
        address: Where it is bound, in the grammar of addresses, or "" if it is not.
        port: The port, or None.
        path: The path, `@name` if abstract, or None.
        inode: The number of the socket, as in /proc/PID/fd and ss(8); not that of its path.
    """

    family: str
    type: str
    listening: bool
    connected: bool
    address: str
    port: int | None
    path: str | None
    inode: int


def look_at(fd: int) -> SocketFacts:
    """Return what the socket *fd* is. It is not changed, and stays open.

    Raises:
        OSError: *fd* is not open (EBADF), or not a socket (ENOTSOCK).

    Source: getsockname(2), SO_ACCEPTCONN in socket(7).
    """
    inode = os.fstat(fd).st_ino
    endpoint = socket.socket(fileno=fd)
    try:
        family, type_ = (
            _FAMILIES.get(endpoint.family, "other"),
            _TYPE_NAMES.get(endpoint.type, "other"),
        )
        name: Any = endpoint.getsockname()
        return SocketFacts(
            family=family,
            type=type_,
            listening=bool(endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)),
            connected=_has_peer(endpoint),
            address=_describe_name(endpoint, family, type_, name),
            port=name[1] if family in {"inet", "inet6", "vsock"} else None,
            path=_read_path(name) if family == "unix" else None,
            inode=inode,
        )
    finally:
        endpoint.detach()  # the descriptor is the caller's


def address_text(fd: int) -> str:
    """Return where the socket *fd* is bound: `127.0.0.1:40123` shows what port 0 became.

    The text can be read back as an address; a socket on all IPv4 and IPv6 addresses is `*:PORT`.

    Raises:
        OSError: *fd* is not an open socket.
    """
    return look_at(fd).address


def adopt(  # noqa: PLR0913 - each thing that may be checked
    fd: int,
    *,
    family: str | None = None,
    type: str | None = None,  # noqa: A002 - socket(2) calls it so
    listening: bool | None = None,
    port: int | None = None,
    path: str | None = None,
) -> None:
    """Check that *fd* is the socket that is expected, and make it close-on-exec.

    What is None is not checked. *family* and *type* are words of `SocketFacts`, and "ip" is either
    "inet" or "inet6"; *path* is `@name` for an abstract one. O_NONBLOCK is left as it is: whoever
    passed the socket may still share it.

    Raises:
        ConfigError: It is not open, not a socket, or another one; it was not changed.

    Source: sd_is_socket(3).
    """
    try:
        facts = look_at(fd)
    except OSError as error:
        what = "open" if error.errno == errno.EBADF else "a socket"
        message = f"cannot take descriptor {fd}: it is not {what}"
        raise ConfigError(message) from error
    wrong = _find_difference(facts, family, type, listening, port, path)
    if wrong:
        where = f" on {facts.address}" if facts.address else ""
        message = f"cannot take descriptor {fd}: it is {_describe_facts(facts)}{where}, {wrong}"
        raise ConfigError(message)
    os.set_inheritable(fd, False)  # noqa: FBT003 - the name says what


def _find_difference(  # noqa: PLR0913, PLR0917 - as adopt
    facts: SocketFacts,
    family: str | None,
    type_: str | None,
    listening: bool | None,  # noqa: FBT001 - as adopt
    port: int | None,
    path: str | None,
) -> str:
    """Return what is not as expected, in words, or ""."""
    families = {"ip": ("inet", "inet6"), None: (facts.family,)}.get(family, (family,))
    if facts.family not in families:
        return f"not of family {family}"
    if type_ not in {None, facts.type}:
        return f"not of type {type_}"
    if listening is not None and facts.listening is not listening:
        return "and does not listen" if listening else "and listens"
    if port not in {None, facts.port}:
        return f"not on port {port}"
    if path not in {None, facts.path}:
        return f"not on path {path}"
    return ""


def _describe_facts(facts: SocketFacts) -> str:
    state = "listening " if facts.listening else "connected " if facts.connected else ""
    article = "an" if not state and facts.family[0] in "aeio" else "a"
    return f"{article} {state}{facts.family} {facts.type} socket"


def _describe_name(endpoint: socket.socket, family: str, type_: str, name: Any) -> str:
    if family in {"inet", "inet6"}:
        host, port = name[0], name[1]
        scope = None
        if family == "inet6":
            if host == "::" and not endpoint.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                host = "*"
            scope = socket.if_indextoname(name[3]) if name[3] else None
        return describe_internet("udp" if type_ == "dgram" else "tcp", host, scope, port)
    if family == "vsock":
        cid, port = name
        return f"vsock:{'*' if cid == socket.VMADDR_CID_ANY else cid}:{port}"
    path = _read_path(name) if family == "unix" else None
    kind = {"stream": "unix", "dgram": "unixgram", "seqpacket": "seqpacket"}.get(type_)
    return f"{kind}:{escape(path)}" if kind and path else ""


def describe_internet(kind: str, host: str, scope: str | None, port: int) -> str:
    """Return a TCP or UDP address as the grammar of addresses prints it."""
    if ":" in host:
        host = f"[{host}%{scope}]" if scope else f"[{host}]"
    return f"{host}:{port}" if kind == "tcp" else f"{kind}:{host}:{port}"


def _read_path(name: str | bytes) -> str | None:
    """Return the path or `@name` that getsockname(2) gave, or None for a socket without one."""
    if isinstance(name, bytes):  # abstract: a zero byte, then anything
        return "@" + os.fsdecode(name[1:]) if name else None
    return name or None


def escape(path: str) -> str:
    """Return *path* as the grammar of addresses has it; a test holds the two together."""
    return "".join(
        c
        if c.isprintable() and c not in " %?"
        else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in path
    )


def _has_peer(endpoint: socket.socket) -> bool:
    try:
        endpoint.getpeername()
    except OSError:
        return False
    return True
