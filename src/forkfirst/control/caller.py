"""One caller of the control socket: who it is, what it sent, what it has not yet read.

Nothing here waits: a call that would is put off until poll(2) says that it would not. What is held
for a caller is bounded: one request, and one answer.
"""

from __future__ import annotations

import os
import struct
import sys
import time

from forkfirst.control.protocol import MAX_REQUEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping
    from typing import Any

_CHUNK = 16 * 1024
_MOST_DESCRIPTORS = 253  # the kernel's SCM_MAX_FD


class Caller:
    """A connection that was accepted; *stream* does not block and is this object's to close.

    Attributes:
        active: When a byte last went either way, by the monotonic clock.
        descriptors: What it passed with its requests and nobody has taken yet.
        ending: Whether to hang up as soon as all is sent.
    """

    __slots__ = ("_incoming", "_outgoing", "active", "descriptors", "ending", "stream")

    def __init__(self, stream: _socket.socket) -> None:
        self.stream = stream
        self.active = time.monotonic()
        self.descriptors: list[int] = []
        self.ending = False
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")

    @property
    def wants_to_read(self) -> bool:
        """Whether an answer is still being sent, before which no request is taken."""
        return bool(self._outgoing)

    @property
    def idleness(self) -> tuple[bool, float]:
        """A key that sorts callers: first those of whom nothing is held, the longest idle first."""
        return bool(self._outgoing or self._incoming), self.active

    def receive(self) -> None:
        """Take what was sent, a chunk at most; at the end of the stream, be `ending`.

        Raises:
            OSError: The connection is broken.
        """
        try:
            data = self._receive_with_descriptors()
        except BlockingIOError:
            return
        self.active = time.monotonic()
        self._incoming += data
        if not data:
            self.ending = True  # what is left of a request will never be whole

    def _receive_with_descriptors(self) -> bytes:
        import _socket  # noqa: PLC0415 - loaded by the accept before

        room = _socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
        flags = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
        data, ancillary, _, _ = self.stream.recvmsg(_CHUNK, room, flags)
        for level, kind, rights in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                self.descriptors += (number for (number,) in struct.iter_unpack("i", rights))
        return data

    def close_descriptors(self) -> None:
        """Close what it passed and nobody has taken."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def take_line(self) -> bytearray | None:
        """Return the next request, without its line feed, or None until one is whole.

        One that grew longer than a request may be is returned as far as it came, so that it is
        answered with that error; then this is `ending`, as nothing says where the next begins.
        """
        line, end, rest = self._incoming.partition(b"\n")
        if not end and len(line) <= MAX_REQUEST:
            return None
        self._incoming = rest
        self.ending = self.ending or len(line) > MAX_REQUEST
        return line

    def hand_over(self) -> dict[str, Any]:
        """Return what `take_over` makes the same caller of, in a process with its descriptors."""
        return {
            "fd": self.stream.fileno(),
            "descriptors": self.descriptors,
            "active": self.active,
            "ending": self.ending,
            "incoming": self._incoming.decode("latin-1"),
            "outgoing": bytes(self._outgoing).decode("latin-1"),
        }

    @classmethod
    def take_over(cls, data: Mapping[str, Any]) -> Caller:
        """Return the caller that another process of this service was serving."""
        import _socket  # noqa: PLC0415 - only for an upgrade

        caller = cls(_socket.socket(fileno=data["fd"]))
        caller.descriptors = list(data["descriptors"])
        caller.active, caller.ending = data["active"], data["ending"]
        caller._incoming += data["incoming"].encode("latin-1")
        caller.put(data["outgoing"].encode("latin-1"))
        return caller

    def put(self, answer: bytes) -> None:
        """Have *answer* sent; the answer before it was sent."""
        self._outgoing = memoryview(answer)

    def send(self) -> None:
        """Send what can be sent now.

        Raises:
            OSError: The connection is broken.
        """
        while self._outgoing:
            try:
                sent = self.stream.send(self._outgoing, _no_signal())
            except BlockingIOError:
                return
            self.active = time.monotonic()
            self._outgoing = self._outgoing[sent:]


def refuse(stream: _socket.socket, answer: bytes) -> None:
    """Send *answer*, as far as that goes without waiting, and hang up."""
    try:  # noqa: SIM105 - contextlib is not loaded here
        # A fresh connection's buffer is empty, so this is sent or fails, and never waits.
        stream.send(answer, _no_signal())
    except OSError:
        pass  # it did not stay to hear it
    stream.close()


def read_peer_uid(stream: _socket.socket) -> int | None:
    """Return the effective uid that connected, or None where the system cannot say.

    Source: unix(7) for SO_PEERCRED; unix(4) of FreeBSD and macOS for LOCAL_PEERCRED.
    """
    import _socket  # noqa: PLC0415 - loaded by the accept before

    system: str = sys.platform  # a copy, or type checkers see only the system they run on
    try:
        if system == "linux":
            size = struct.calcsize("iII")
            credentials = stream.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, size)
            return int(struct.unpack("iII", credentials)[1])  # pid, uid, gid
        if system == "darwin" or system.startswith("freebsd"):
            # struct xucred: a version, the uid, and groups; level 0 is SOL_LOCAL, option 1 this.
            return int(struct.unpack_from("II", stream.getsockopt(0, 1, 128))[1])
    except (OSError, struct.error):
        pass
    return None


def _no_signal() -> int:
    """Return the flag by which send(2) to who has hung up is an error and not SIGPIPE."""
    import _socket  # noqa: PLC0415 - loaded by the accept before

    return getattr(_socket, "MSG_NOSIGNAL", 0)
