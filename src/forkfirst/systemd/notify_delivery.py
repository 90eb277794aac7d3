"""How one notification travels: one socket, one message, a limit on every wait.

Imported when the first message is sent, for it needs `socket`, which no start should wait for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from forkfirst.systemd.notify_address import Address

    Ancillary = list[tuple[int, int, bytes]]

_SEND_BUFFER = 8 * 1024 * 1024
_SO_SNDBUFFORCE = 32  # of Linux; the socket module has no name for it
_QUIET = getattr(socket, "MSG_NOSIGNAL", 0)  # not on macOS, where Python ignores SIGPIPE anyway
_FAMILY_VSOCK = getattr(socket, "AF_VSOCK", 40)  # 40 elsewhere too: refused by the kernel there
_NO_SUCH_SOCKETS = (
    errno.ENODEV,
    errno.EOPNOTSUPP,
    errno.EPROTONOSUPPORT,
    getattr(errno, "ESOCKTNOSUPPORT", errno.ENODEV),
)


def deliver(
    address: Address, message: bytes, fds: Sequence[int], pid: int | None, timeout: float
) -> None:
    """Send one message to *address*.

    Raises:
        TimeoutError: There was no room, or over vsock no end of the exchange, in *timeout* seconds.
        OSError: It could not be sent.
    """
    with _open(address, timeout) as sending:
        _raise_buffer(sending)
        rights = _make_rights(fds)
        if pid is None or not hasattr(socket, "SCM_CREDENTIALS"):
            _send_all(sending, message, rights)
        else:
            try:
                _send_all(sending, message, [*rights, _make_credentials(pid)])
            except (PermissionError, ProcessLookupError):
                _send_all(sending, message, rights)
        if address.is_vsock:
            wait_until_taken(sending)


def wait_until_taken(sending: socket.socket) -> None:
    """End the message on a connection, and wait for the other side to do the same.

    Datagrams need no end.

    Raises:
        OSError: Something came back, or nothing did in the time of the socket.
    """
    if sending.type == socket.SOCK_DGRAM:
        return
    sending.shutdown(socket.SHUT_WR)
    if sending.recv(1):
        message = "the service manager answered, which is not in the protocol"
        raise OSError(message)


def _open(address: Address, timeout: float) -> socket.socket:
    """Connect, so that a full queue at the other end can be waited for with a limit."""
    family = _FAMILY_VSOCK if address.is_vsock else socket.AF_UNIX
    for form in address.forms:
        try:
            opened = socket.socket(family, getattr(socket, f"SOCK_{form.upper()}"))
        except OSError as error:
            if error.errno in _NO_SUCH_SOCKETS and form != address.forms[-1]:
                continue
            raise
        try:
            opened.settimeout(timeout)
            if address.is_vsock:
                _bind_privileged(opened)
            opened.connect(address.target)
        except OSError as error:
            opened.close()
            if error.errno in _NO_SUCH_SOCKETS and form != address.forms[-1]:
                continue
            raise
        return opened
    raise AssertionError(address)  # there is always a last form


def _bind_privileged(opened: socket.socket) -> None:
    """Take a port below 1024, by which a host tells a guest's manager from its users."""
    for port in range(1023, 0, -1):
        try:
            opened.bind((socket.VMADDR_CID_ANY, port))
        except PermissionError:
            return  # not root: the kernel chooses a high one
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return


def _raise_buffer(sending: socket.socket) -> None:
    options = (_SO_SNDBUFFORCE, socket.SO_SNDBUF)  # the first needs CAP_NET_ADMIN
    for option in options if sys.platform == "linux" else options[1:]:
        try:
            sending.setsockopt(socket.SOL_SOCKET, option, _SEND_BUFFER)
        except OSError:
            continue
        return


def _send_all(sending: socket.socket, message: bytes, ancillary: Ancillary) -> None:
    sent = sending.sendmsg([message], ancillary, _QUIET)
    while sent < len(message):  # a stream may take it in pieces; what was sent along went along
        sent += sending.send(message[sent:], _QUIET)


def _make_rights(fds: Sequence[int]) -> Ancillary:
    if not fds:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]


def _make_credentials(pid: int) -> tuple[int, int, bytes]:
    credentials = struct.pack("iII", pid, os.getuid(), os.getgid())
    return socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials
