"""Bytes and descriptors from one process to another that it was forked from, in one message.

Source: unix(7), SCM_RIGHTS; cmsg(3).
"""

from __future__ import annotations

import _socket  # the C module below `socket`, whose Python half costs 2.8 ms
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_DESCRIPTORS = 253
"""The kernel's SCM_MAX_FD."""

_LENGTH = struct.Struct("!Q")
_CHUNK = 1 << 16


def open_passage() -> tuple[int, int]:
    """Return the two ends: the sender's and the receiver's, both close-on-exec."""
    sender, receiver = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    ends = sender.detach(), receiver.detach()
    for end in ends:
        os.set_inheritable(end, False)  # noqa: FBT003 - its only argument
    return ends


def send(fd: int, data: bytes, descriptors: Sequence[int]) -> None:
    """Send *data* and copies of *descriptors* through the sender's end *fd*.

    Raises:
        ValueError: More than `MOST_DESCRIPTORS`.
        BrokenPipeError: The receiver is gone.
    """
    if len(descriptors) > MOST_DESCRIPTORS:
        message = f"{len(descriptors)} descriptors, and one message takes {MOST_DESCRIPTORS}"
        raise ValueError(message)
    passage = _socket.socket(fileno=os.dup(fd))
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if descriptors else []
    try:
        passage.sendmsg([_LENGTH.pack(len(data))], ancillary)
        passage.sendall(data)
    finally:
        passage.close()


def await_sent(fd: int) -> None:
    """Wait until something was sent to the receiver's end *fd*, or the sender is gone.

    Takes nothing; whoever else has that end may have taken it by then.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()


def receive(fd: int) -> tuple[bytes, list[int]] | None:
    """Wait for what was sent; None if the sender is gone without it. Descriptors are close-on-exec.

    Raises:
        OSError: Descriptors were lost, because this process may have no more of them.
    """
    passage = _socket.socket(fileno=os.dup(fd))
    try:
        room = _socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
        flags = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
        header, ancillary, answer_flags, _ = passage.recvmsg(_LENGTH.size, room, flags)
        descriptors = [
            number
            for level, kind, rights in ancillary
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            for (number,) in struct.iter_unpack("i", rights)
        ]
        if answer_flags & _socket.MSG_CTRUNC:
            raise OSError(24, "some of the descriptors could not be taken over")
        if not header:
            return None
        for number in descriptors:
            os.set_inheritable(number, False)  # noqa: FBT003 - where recvmsg(2) cannot
        data = bytearray()
        length = _LENGTH.unpack(header)[0]
        while len(data) < length:
            part = passage.recv(min(_CHUNK, length - len(data)))
            if not part:
                return None
            data += part
        return bytes(data), descriptors
    finally:
        passage.close()
