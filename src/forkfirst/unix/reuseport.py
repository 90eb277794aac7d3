"""Several listening sockets on one TCP address, each with a queue of its own, and who gets what.

The kernel deals connections out to the members of such a group by chance. Of them it knows the
place: the order in which they began to listen. Where one is closed the last one takes its place,
so who counts on places closes the last one first, and ends it for everybody with `end`.

Linux 4.5 and later; elsewhere a group deals out nothing, or everything to one member.
"""

from __future__ import annotations

import _socket  # the C module below `socket`, whose Python half costs 2.8 ms
import errno
import os
import struct
import sys

from forkfirst.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_IP_FREEBIND = 15  # <linux/in.h>
_ATTACH_FILTER = 51  # SO_ATTACH_REUSEPORT_CBPF in <asm-generic/socket.h>

# Classic BPF, <linux/filter.h>: operation, jump if true, jump if false, operand
_LOAD_CHANCE = (0x20, 0, 0, 0xFFFFF000 + 56)  # BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + _RANDOM
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_SKIP_UNLESS_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_RETURN_ACCUMULATOR = (0x16, 0, 0, 0)  # BPF_RET | BPF_A
_INSTRUCTION = struct.Struct("=HBBI")

_UNACKED = slice(24, 28)  # tcpi_unacked in struct tcp_info, <linux/tcp.h>
_SACKED = slice(28, 32)


def check_possible() -> None:
    """Refuse where the kernel does not deal connections out to a group.

    Raises:
        ConfigError: This is not Linux.
    """
    if not sys.platform.startswith("linux"):
        message = f"{sys.platform} deals no connections out to the sockets of one port"
        raise ConfigError(message, hint="leave out reuseport: the workers then share one socket")


def join(fd: int) -> int:
    """Return another socket that listens where *fd* does: as long a queue, the same options.

    Raises:
        OSError: EADDRINUSE if *fd* is another user's socket, or is not in a group; EACCES if the
            port is a low one and this process has no right to it; no descriptors or memory.

    Source: SO_REUSEPORT in socket(7).
    """
    model = _socket.socket(fileno=fd)
    try:
        another = _socket.socket(model.family, _socket.SOCK_STREAM, model.proto)
        try:
            for level, option in _list_options(model.family):
                another.setsockopt(level, option, model.getsockopt(level, option))
            another.bind(model.getsockname())
            another.listen(_read_info(model, _SACKED))
            another.setblocking(False)  # noqa: FBT003 - the name says what
            return another.detach()
        finally:
            another.close()
    finally:
        model.detach()  # it is the caller's


def steer(fd: int, places: Sequence[int]) -> None:
    """Have connections dealt out by chance among *places* of the group of *fd*, and no others.

    It is so until the next call, also for members that join later. Who waits already in a queue, or
    is in the middle of a handshake, stays with the member that has it.

    Raises:
        OSError: ENOPROTOOPT if the kernel has no such thing; EINVAL if *fd* is not in a group.

    Source: SO_ATTACH_REUSEPORT_CBPF in socket(7); Documentation/networking/filter of the kernel.
    """
    import array  # noqa: PLC0415 - few services are spread

    program = [_LOAD_CHANCE, (_MODULO, 0, 0, len(places))]
    for chance, place in enumerate(places):
        if chance != place:
            program += [(_SKIP_UNLESS_EQUAL, 0, 1, chance), (_RETURN, 0, 0, place)]
    program.append(_RETURN_ACCUMULATOR)
    octets = array.array("B", b"".join(_INSTRUCTION.pack(*one) for one in program))
    address, _ = octets.buffer_info()  # the kernel copies what is there
    group = _socket.socket(fileno=fd)
    try:
        described = struct.pack("HP", len(program), address)  # struct sock_fprog
        group.setsockopt(_socket.SOL_SOCKET, _ATTACH_FILTER, described)
    finally:
        group.detach()


def count_waiting(fd: int) -> int:
    """Return how many connections stand in the queue of *fd*, not accepted yet.

    Source: TCP_INFO in tcp(7): of a listener, tcpi_unacked is the length of its queue.
    """
    listener = _socket.socket(fileno=fd)
    try:
        return _read_info(listener, _UNACKED)
    finally:
        listener.detach()


def end(fd: int) -> None:
    """Take *fd* out of its group, whoever has a copy of it, and close it.

    This is the one listener on which shutdown(2) is right: nobody is to accept from it any more,
    and a copy that a child of a worker has kept would go on being a member, and move the places of
    those who join later.
    """
    listener = _socket.socket(fileno=os.dup(fd))
    try:
        listener.shutdown(_socket.SHUT_RDWR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:  # else a program has done it already
            raise
    finally:
        listener.close()
        os.close(fd)


def _list_options(family: int) -> list[tuple[int, int]]:
    options = [
        (_socket.SOL_SOCKET, _socket.SO_REUSEADDR),
        (_socket.SOL_SOCKET, _socket.SO_REUSEPORT),
        (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE),
        (_socket.IPPROTO_TCP, _socket.TCP_NODELAY),
        (_socket.IPPROTO_TCP, _socket.TCP_DEFER_ACCEPT),
        (_socket.IPPROTO_IP, _IP_FREEBIND),
    ]
    if family == _socket.AF_INET6:
        options.append((_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY))
    return options


def _read_info(listener: _socket.socket, field: slice) -> int:
    info = listener.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 32)
    return int.from_bytes(info[field], sys.byteorder)
