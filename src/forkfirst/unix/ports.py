"""Who holds an address, and the refusal that says so. Loaded only when something was refused.

Everything is read from /proc, so it is what this user may see; on a system without one, nobody is
found and the refusal is shorter.
"""

# pathlib is not loaded before the fork
from __future__ import annotations

import errno
import os
import socket
import sys

from forkfirst.errors import (
    AddressInUseError,
    CannotCreateError,
    ForkfirstError,
    PermissionRefusedError,
    SystemRefusedError,
)
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTENING = "0A"  # TCP_LISTEN of <net/tcp_states.h>, as /proc/net/tcp writes it
_ACCEPTING = 0x10000  # __SO_ACCEPTCON of <linux/net.h>, as /proc/net/unix writes it
_UNCONNECTED = "01"  # SS_UNCONNECTED of <linux/net.h>, in the same file: listening, or only bound
_DATAGRAM = "0002"  # SOCK_DGRAM, in the same file
_FIRST_FREE_PORT = 1024  # where the kernel does not say otherwise
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV, errno.ENXIO)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Holder(Value):
    """Who has a socket open.

    Attributes:
        pid: The eldest process that has it, or None if this user may not see which.
        command: What that process calls itself, or "".
        uid: Who made the socket, or None if that is not told.
    """

    pid: int | None
    command: str
    uid: int | None

    def describe(self) -> str:
        """Return the holder in words: `pid 4711 (nginx)`."""
        if self.pid == os.getpid():
            return f"this very process, pid {self.pid}"
        if self.pid is not None:
            return f"pid {self.pid} ({self.command})"
        if self.uid in {None, os.geteuid()}:
            return "a process that cannot be seen from here"
        return f"another user's process (uid {self.uid})"


def find_holder(kind: str, port: int, *, host: str = "") -> Holder | None:
    """Return who holds *port* of *kind* ("tcp" or "udp") so that *host* cannot be bound there.

    With *host* an IP address: a socket on that very address first, then one on all addresses.

    Source: proc_net(5), proc_pid_fd(5).
    """
    wanted = _encode_address(host)
    best: tuple[int, str, int] | None = None
    for address, inode, uid in _list_ports(kind, port):
        everywhere = not address.strip("0")
        rank = 0 if address == wanted else 1 if everywhere else 2
        if rank == 2 and wanted.strip("0"):  # noqa: PLR2004 - two different addresses do not meet
            continue
        if best is None or rank < best[0]:
            best = (rank, inode, uid)
    return None if best is None else _look_up_holder(best[1], best[2])


def find_path_holder(path: str, *, accepting: bool | None = None) -> Holder | None:
    """Return who holds a unix socket bound to *path* (`@name` if abstract).

    *accepting* narrows it to sockets that listen (True) or do not (False). Connections do not
    count, though the kernel lists them under the path of their listener. The path is compared as
    the text that was bound, so an equal text of another mount namespace is found as well.

    Source: net/unix/af_unix.c, unix_seq_show, for the fields of /proc/net/unix.
    """
    for text, inode, flags in _list_unix():
        if text == path and accepting in {None, bool(flags & _ACCEPTING)}:
            return _look_up_holder(inode, None)
    return None


def make_refusal(
    address: str, error: OSError, *, holder: Holder | None = None, port: int | None = None
) -> ForkfirstError:
    """Return what to raise for *error*, met when opening a socket on *address*.

    It says what was attempted, on what, why, and a hint where that is certain.
    """
    what = f"cannot listen on {address}"
    code = error.errno
    why = (error.strerror or str(error)).lower()
    if code == errno.EADDRINUSE:
        return _refuse_taken(what, holder)
    if code in _NOT_ALLOWED and port is not None and 0 < port < read_first_free_port():
        return _refuse_low_port(what, port)
    make: type[ForkfirstError] = CannotCreateError
    if isinstance(error, socket.gaierror):
        make, why = AddressInUseError, f"no such host: {why}"
    elif code in _NOT_HERE:
        make, why = AddressInUseError, f"not an address of this machine: {why}"
    elif code in _NOT_ALLOWED:
        make = PermissionRefusedError
    elif code in _NO_RESOURCES:
        make = SystemRefusedError
    return make(f"{what}: {why}")


def _refuse_taken(what: str, holder: Holder | None) -> AddressInUseError:
    if holder is None:
        return AddressInUseError(f"{what}: address already in use")
    hint = ""
    if holder.pid == 1 and holder.command == "systemd":
        hint = 'a systemd socket unit holds it; "systemd:NAME" takes it from there'
    return AddressInUseError(f"{what}: address in use by {holder.describe()}", hint=hint)


def _refuse_low_port(what: str, port: int) -> PermissionRefusedError:
    first = read_first_free_port()
    hint = (
        "start as root with --user, let systemd hold the socket (socket activation), "
        f"give CAP_NET_BIND_SERVICE, or set sysctl net.ipv4.ip_unprivileged_port_start={port}"
    )
    if not sys.platform.startswith("linux"):
        hint = "start as root with --user"
    user = _look_up_user_name(os.geteuid())
    why = f"{user} may not bind ports below {first} (no CAP_NET_BIND_SERVICE)"
    return PermissionRefusedError(f"{what}: {why}", hint=hint)


def read_first_free_port() -> int:
    """Return the lowest port that needs no privilege.

    Source: ip_unprivileged_port_start in ip(7).
    """
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return _FIRST_FREE_PORT


def _look_up_user_name(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only a refusal needs it

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid {uid}"


def _encode_address(host: str) -> str:
    """Return *host* as /proc/net writes it: each 32-bit word in the order of this machine."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, host)
        except OSError:
            continue
        words = (packed[first : first + 4] for first in range(0, len(packed), 4))
        return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return ""


def _list_ports(kind: str, port: int) -> Iterator[tuple[str, str, int]]:
    """Yield address, inode and uid of each socket on *port*, of the listening ones for TCP."""
    for table in (kind, f"{kind}6"):
        for line in _read_lines(f"/proc/net/{table}"):
            fields = line.split()
            address, _, number = fields[1].rpartition(":")
            if int(number, 16) != port or (kind == "tcp" and fields[3] != _LISTENING):
                continue
            yield address, fields[9], int(fields[7])


def _list_unix() -> Iterator[tuple[str, str, int]]:
    """Yield path, inode and flags of each unix socket that is bound, and no connection."""
    for line in _read_lines("/proc/net/unix"):
        fields = line.split(None, 7)
        if len(fields) <= 7:  # noqa: PLR2004 - a socket without a path has seven
            continue
        # To Linux, a datagram socket is connected as soon as anybody has connected to it.
        if fields[5] == _UNCONNECTED or fields[4] == _DATAGRAM:
            yield fields[7], fields[6], int(fields[3], 16)


def _read_lines(path: str) -> list[str]:
    """Return the lines of a table below its heading, or none where there is no such table."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read().split("\n")[1:-1]
    except OSError:
        return []


def _look_up_holder(inode: str, uid: int | None) -> Holder:
    """Return the process with the lowest pid that has the socket *inode* open."""
    wanted = f"socket:[{inode}]"
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # another user's, or gone meanwhile
        for descriptor in descriptors:
            try:
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") == wanted:
                    return Holder(pid=pid, command=_read_command(pid), uid=uid)
            except OSError:
                continue
    return Holder(pid=None, command="", uid=uid)


def _read_command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"
