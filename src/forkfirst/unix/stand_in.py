"""A stand-in under a listener's number: who accepts from it waits, and nobody can connect to it.

That is how a process leaves out a listener for a while without closing it, whatever runs the code
that accepts: asyncio's loop, libuv's, trio, threads that block in accept(2). They keep the number;
behind it is another socket. Closing the listener would not be undone, shutdown(2) would end it for
all who share it, and O_NONBLOCK is shared as well.

The danger is in epoll(7), which remembers the open file and not the number: a listener that is
replaced while it is watched goes on being reported, and can no longer be removed. So each epoll of
the process stops watching the one before, and watches the other after, in the same way.

Linux only: elsewhere each function raises OSError with ENOSYS.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0: not one octet of any packet
_EPOLL = "anon_inode:[eventpoll]"
_LOW_HALF = 0xFFFFFFFF


class StandIn:
    """One listener that is replaced by a socket which nobody can reach.

    Attributes:
        fd: The listener's number, which is the stand-in's until `leave`.
    """

    def __init__(self, fd: int, kept: int, inode: int) -> None:
        self.fd = fd
        self._kept = kept
        self._inode = inode

    def leave(self) -> None:
        """Put the listener back, unless the program has closed its number meanwhile."""
        try:
            if os.fstat(self.fd).st_ino == self._inode:
                _exchange(self.fd, self._kept)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        finally:
            os.close(self._kept)


def replace_listeners(descriptors: Iterable[int]) -> list[StandIn]:
    """Put a stand-in under each number of this process that is one of these listening sockets.

    Datagram sockets are left as they are: who answers a datagram needs the very socket. A thread
    that is blocked in accept(2) already gets one more connection, unless a signal wakes it.

    Raises:
        OSError: One of them cannot be replaced; then none is.

    Source: socket(7) SO_ATTACH_FILTER, epoll(7), proc_pid_fdinfo(5), dup2(2).
    """
    if not hasattr(select, "epoll"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    wanted = {os.fstat(fd).st_ino for fd in descriptors if _is_listening(fd)}
    made: list[StandIn] = []
    try:
        made.extend(_replace(fd) for fd in list(_list_numbers(wanted)))
    except OSError:
        for one in made:
            one.leave()
        raise
    return made


def _is_listening(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as one:
            return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # closed by the program, or no socket any more


def _list_numbers(inodes: set[int]) -> Iterator[int]:
    """Yield every descriptor of this process that is one of these sockets: programs copy them.

    Have all of them before the first is replaced: that makes new ones.
    """
    if not inodes:
        return
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            if os.fstat(int(name)).st_ino in inodes:
                yield int(name)


def _replace(fd: int) -> StandIn:
    with make_unreachable() as other:
        other.setblocking(os.get_blocking(fd))
        kept = os.dup(fd)
        try:
            _exchange(fd, other.fileno())
        except OSError:
            os.close(kept)
            raise
        return StandIn(fd, kept, os.fstat(fd).st_ino)


def make_unreachable() -> socket.socket:
    """Return a listening socket that drops whatever comes for it.

    Not a unix one: without a name that cannot listen, and with one somebody could find it.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        program = _Memory(_DROP_ALL)
        made.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, program.address))
        made.bind(("127.0.0.1", 0))
        made.listen(1)
    except OSError:
        made.close()
        raise
    return made


class _Memory:
    """Octets that stay where they are, and their address."""

    def __init__(self, octets: bytes) -> None:
        from array import array  # noqa: PLC0415 - only for a pause

        self._octets = array("B", octets)
        self.address = self._octets.buffer_info()[0]


# -- epoll -----------------------------------------------------------------------------------------


def _exchange(fd: int, other: int) -> None:
    """Make the number *fd* mean what *other* means, also to every epoll that watches it."""
    inheritable = os.get_inheritable(fd)
    watching: list[tuple[select.epoll, int]] = []
    try:
        for epoll, events in _find_watches(fd):
            with suppress(FileNotFoundError):  # what it watches had this number before
                epoll.unregister(fd)
                watching.append((epoll, events))
        os.dup2(other, fd, inheritable)
    finally:
        for epoll, events in watching:
            epoll.register(fd, events)
            epoll.close()  # a copy


def _find_watches(fd: int) -> list[tuple[select.epoll, int]]:
    """Return a copy of each epoll of this process that watches *fd*, and for what.

    Raises:
        OSError: One does it in the name of something else than the number (EOPNOTSUPP): that cannot
            be restored from Python.
    """
    found = [
        (number, int(events, 16))
        for number in _list_epolls()
        for watched, events, data in _read_watches(number)
        if watched == fd and _is_in_its_name(fd, data)
    ]
    return [(select.epoll.fromfd(os.dup(number)), events) for number, events in found]


def _list_epolls() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            if os.readlink(f"/proc/self/fd/{name}") == _EPOLL:
                found.append(int(name))
    return found


def _read_watches(epoll: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield of all that *epoll* watches the number, the events and the data, both hexadecimal."""
    with open(f"/proc/self/fdinfo/{epoll}", "rb") as file:
        for line in file:
            words = line.split()
            if words[:1] == [b"tfd:"]:
                yield int(words[1]), words[3], words[5]


def _is_in_its_name(fd: int, data: bytes) -> bool:
    if int(data, 16) & _LOW_HALF != fd:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return True
