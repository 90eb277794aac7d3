"""The other side of sd_notify: what a launcher hears from a command that it started.

The receiver judges nobody: `Message.pid` is what the kernel says of the sender, and whoever uses
this must ask whether that process is one of its own. Also here is the other language of readiness,
s6's: a line feed on a pipe.
"""

from __future__ import annotations

import os
import socket
import stat
import struct

from forkfirst import errors
from forkfirst.systemd.notify_address import parse_address
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_LONGEST_MESSAGE = 4096
_MOST_FDS = 253
_CREDENTIALS = struct.Struct("iII")
_MOST_DROPPED = 64  # in one call, so that a flood of rubbish cannot hold the caller


class Message(Value):
    """One message of a command.

    Attributes:
        pid: The sender, from the kernel; 0 where the kernel does not say (only Linux does).
        fields: What it said; the last of two fields with one name, as systemd has it.
        fds: Descriptors that came along. They belong to the caller, who must close them.
    """

    pid: int
    fields: dict[str, str]
    fds: tuple[int, ...] = ()


class Receiver:
    """A bound notification socket. Non-blocking; wait for it with `fileno`.

    Read it or close it: a sender that uses the C library waits without end for room in its queue,
    which holds about ten messages (a systemd 257 as PID 1 was seen to stand still so).

    Attributes:
        address: What to put into NOTIFY_SOCKET.
    """

    def __init__(self, bound: socket.socket, address: str) -> None:
        self.address = address
        self._socket = bound
        self._inode: os.stat_result | None = None
        if address.startswith("/"):
            self._inode = os.lstat(address)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def receive(self) -> Message | None:
        """Return the next message, or None if none is waiting.

        A barrier (BARRIER=1 with one descriptor) is answered by closing that descriptor, and
        returned without it. What breaks the protocol (cut off, a NUL inside, a barrier with
        anything else) is dropped, its descriptors closed.

        Raises:
            OSError: The socket is closed, or out of memory.

        Source: recvmsg(2), unix(7) (SCM_CREDENTIALS), sd_notify(3).
        """
        for _ in range(_MOST_DROPPED):
            try:
                received = self._receive()
            except BlockingIOError:
                return None
            if received is not None:
                return received
        return None

    def close(self) -> None:
        """Close the socket, and remove its path if it is still ours. May be called twice."""
        self._socket.close()
        if self._inode is None:
            return
        try:
            if os.path.samestat(os.lstat(self.address), self._inode):
                os.unlink(self.address)
        except FileNotFoundError:
            pass
        self._inode = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self) -> Message | None:
        room = socket.CMSG_SPACE(4 * _MOST_FDS) + socket.CMSG_SPACE(_CREDENTIALS.size)
        on_exec = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        octets, ancillary, flags, _ = self._socket.recvmsg(_LONGEST_MESSAGE, room, on_exec)
        pid = 0
        fds: list[int] = []
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_RIGHTS:
                count = len(data) // 4
                fds += struct.unpack(f"{count}i", data[: count * 4])
            elif kind == getattr(socket, "SCM_CREDENTIALS", None):
                pid = _CREDENTIALS.unpack(data)[0]
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or b"\0" in octets.rstrip(b"\0"):
            _close_all(fds)
            return None
        return _make_message(pid, octets, fds)


def open_receiver(path: str) -> Receiver:
    """Bind a notification socket at *path*, absolute, or at `@name` in the abstract namespace.

    A path gets the mode that the umask leaves; a command of another user needs to write to it. An
    abstract name can be written to by everybody in the network namespace.

    Raises:
        ConfigError: *path* is neither.
        CannotCreateError: It cannot be bound; something may be there already, which is left alone.

    Source: unix(7), SO_PASSCRED.
    """
    address = parse_address(path)
    if address.is_vsock:
        message = f"cannot receive notifications at {path}: only a path or an @name can be bound"
        raise errors.ConfigError(message)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        if hasattr(socket, "SO_PASSCRED"):  # first: what comes before it has no sender
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        bound.setblocking(False)  # noqa: FBT003 - the call has no name for it
        bound.bind(address.target)
        return Receiver(bound, path)
    except OSError as error:
        bound.close()
        reason = (error.strerror or str(error)).lower()
        message = f"cannot receive notifications at {path}: {reason}"
        raise errors.CannotCreateError(message) from error


def read_newline_ready(fd: int) -> bool | None:
    """Read once from the pipe *fd*: True after a line feed, False at its end, None for neither.

    Call it when *fd* is readable; else it blocks, or returns None if *fd* is non-blocking. What
    comes before the line feed means nothing.

    Raises:
        OSError: *fd* cannot be read.

    Source: the notification-fd of s6-supervise.
    """
    try:
        octets = os.read(fd, 4096)
    except BlockingIOError:
        return None
    if not octets:
        return False
    return True if b"\n" in octets else None


def write_newline_ready(fd: int) -> None:
    """Say "ready" to a supervisor on its pipe *fd*, and close it.

    Raises:
        UsageError: *fd* is not open for that; 0, 1 and 2 are not either, for they would be closed.
        OSError: The supervisor has gone.

    Source: the notification-fd of s6-supervise.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError as error:
        message = f"cannot notify on descriptor {fd}: {(error.strerror or '').lower()}"
        raise errors.UsageError(message) from error
    if fd <= 2 or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):  # noqa: PLR2004 - stderr
        message = f"cannot notify on descriptor {fd}: it is not a supervisor's pipe"
        raise errors.UsageError(message)
    try:
        os.write(fd, b"\n")
    finally:
        os.close(fd)


def _make_message(pid: int, octets: bytes, fds: list[int]) -> Message | None:
    text = octets.rstrip(b"\0").decode("utf-8", "surrogateescape")
    lines = [line for line in text.split("\n") if "=" in line]
    fields = {name: value for name, _, value in (line.partition("=") for line in lines)}
    if "BARRIER" in fields:
        answered = fields == {"BARRIER": "1"} and len(fds) == 1
        _close_all(fds)
        return Message(pid=pid, fields=fields) if answered else None
    return Message(pid=pid, fields=fields, fds=tuple(fds))


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
