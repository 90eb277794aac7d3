"""Giving out the descriptors that were passed: by name or place, once, and only as what they are.

Nothing is trusted to be what its name says. A descriptor is a listener of a kind only if the kernel
says so: a socket, of that family and type, that listens (SO_ACCEPTCONN). A wrong kind is an error
that leaves the descriptor where it was.

This module needs `socket`; import it only in a process that was passed something.
"""

from __future__ import annotations

import os
import socket
import stat

from forkfirst import errors
from forkfirst.systemd.activation import take_environment
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Literal, TypeVar

    from forkfirst.systemd.activation import Passed

    DefaultT = TypeVar("DefaultT")
    Kind = Literal["tcp", "udp", "unix", "unixgram", "seqpacket", "vsock", "connection", "any"]

KINDS = ("tcp", "udp", "unix", "unixgram", "seqpacket", "vsock", "connection", "any")
_MPTCP = 262  # IPPROTO_MPTCP, which the socket module has no name for before 3.14
_REQUIRED = object()
_UNIX_KINDS: dict[int, str] = {
    socket.SOCK_STREAM: "unix",
    socket.SOCK_DGRAM: "unixgram",
    socket.SOCK_SEQPACKET: "seqpacket",
}


class Nature(Value):
    """What a descriptor really is.

    Attributes:
        kind: The kind of listener or "connection" that it can be taken as; "other" for anything
            else.
        words: What it is, for a message to a person: "a unix stream socket that does not listen".
        is_socket: Whether it is a socket at all.
        listens: Whether connections can be accepted from it.
    """

    kind: str
    words: str
    is_socket: bool = True
    listens: bool = False


def look_up_nature(fd: int) -> Nature:
    """Ask the kernel what the descriptor *fd* is. Changes nothing, takes nothing.

    Raises:
        OSError: It is closed.

    Source: fstat(2), socket(7) (SO_ACCEPTCONN, SO_DOMAIN, SO_TYPE, SO_PROTOCOL), getpeername(2).
    """
    mode = os.fstat(fd).st_mode
    if not stat.S_ISSOCK(mode):
        return Nature(kind="other", words=f"{_describe_mode(mode)}, not a socket", is_socket=False)
    looked_at = socket.socket(fileno=fd)
    try:
        return _classify(looked_at)
    finally:
        looked_at.detach()


class Listeners:
    """The passed descriptors that nobody has taken yet.

    Use from one thread. A socket that was taken belongs to the taker; the others stay open until
    `close_untaken`. To give a unix listener to asyncio on Python 3.13 or newer, pass
    `cleanup_socket=False`: else closing the server removes the manager's path.
    """

    def __init__(self, passed: Iterable[Passed] = ()) -> None:
        self._passed = tuple(passed)
        self._taken: set[int] = set()

    @classmethod
    def from_environment(cls, *, unaddressed: bool = False) -> Listeners:
        """Take what the environment passes to this process; see `take_environment`.

        Raises:
            UsageError: Threads are running already.
            ConfigError: The environment is malformed.
        """
        return cls(take_environment(unaddressed=unaddressed))

    def __len__(self) -> int:
        """Count what was passed, taken or not."""
        return len(self._passed)

    def __iter__(self) -> Iterator[Passed]:
        """Yield what was passed, taken or not, in the order of the descriptors."""
        return iter(self._passed)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order of the descriptors, each as often as it was passed."""
        return tuple(passed.name for passed in self._passed)

    def untaken(self) -> tuple[Passed, ...]:
        """Return what nobody has taken, in order: a typo in a name, or a stored descriptor."""
        return tuple(passed for passed in self._passed if passed.index not in self._taken)

    def take(
        self,
        key: str | int,
        kind: Kind = "any",
        *,
        default: DefaultT = _REQUIRED,  # type: ignore[assignment]  # a sentinel no caller sees
    ) -> socket.socket | DefaultT:
        """Return the passed socket *key*, as *kind*, and never again.

        Of several with one name, this is the first that is not taken.

        Args:
            key: A name, or a place from 0.
            kind: What it must be. "any" is any socket; "connection" a connected one.
            default: What to return if nothing was passed under *key*, so that the caller can bind
                a socket. A socket that was taken before is an error all the same: to bind it again
                would be a mistake.

        Raises:
            ConfigError: Nothing was passed under *key* and there is no default, or it is not of
                that *kind*; it stays takeable.
            UsageError: It was taken already.
        """
        try:
            found = self._find(key)
        except _NotPassedError:
            if default is _REQUIRED:
                raise
            return default
        self._check(found, key, kind)
        return self._hand_out(found)

    def take_all(self, name: str, kind: Kind = "any") -> list[socket.socket]:
        """Return every untaken socket with this *name*, in order: [] if there is none.

        Raises:
            ConfigError: One of them is not of that *kind*; then none is taken.
        """
        chosen = [passed for passed in self.untaken() if passed.name == name]
        for passed in chosen:
            self._check(passed, name, kind)
        return [self._hand_out(passed) for passed in chosen]

    def take_descriptor(self, key: str | int) -> int:
        """Return the descriptor *key*, whatever it is: a memory file that was stored, a pipe.

        It belongs to the caller. Its close-on-exec flag is set.

        Raises:
            ConfigError: Nothing was passed under *key*, or it has been closed since.
            UsageError: It was taken already.
        """
        found = self._find(key)
        self._check(found, key, None)
        os.set_inheritable(found.fd, False)  # noqa: FBT003 - the call has no name for it
        self._taken.add(found.index)
        return found.fd

    def connection(self) -> socket.socket | None:
        """Return the one connection that this process was started for, or None.

        That is the only passed descriptor, if it is a connected socket (`Accept=yes`), or else
        standard input, if it and standard output are one connected socket (inetd). In the latter
        case the socket is a copy; what becomes of 0 and 1 is the caller's to decide.

        Raises:
            OSError: A descriptor could not be copied.

        Source: systemd.socket(5), Accept=.
        """
        untaken = self.untaken()
        if len(self._passed) == 1 and untaken:
            only = untaken[0]
            nature = look_up_nature(only.fd)
            # The client may have gone: then the kernel knows no peer, but it still was one.
            gone = only.name == "connection" and nature.is_socket and not nature.listens
            return self._hand_out(only) if nature.kind == "connection" or gone else None
        if self._passed:
            return None
        try:
            ends = os.fstat(0), os.fstat(1)
        except OSError:
            return None
        if not os.path.samestat(*ends) or look_up_nature(0).kind != "connection":
            return None
        return _open_socket(os.dup(0))

    def close_untaken(self) -> tuple[Passed, ...]:
        """Close what nobody has taken, and return what that was.

        The service manager has its own copy of each. To end a stored one, say so too
        (`Notifier.remove_stored`), or its other end never sees a hang-up.
        """
        closed = self.untaken()
        for passed in closed:
            self._taken.add(passed.index)
            os.close(passed.fd)
        return closed

    def _find(self, key: str | int) -> Passed:
        if isinstance(key, int):
            matching = [passed for passed in self._passed if passed.index == key]
        else:
            matching = [passed for passed in self._passed if passed.name == key]
        if not matching:
            names = ", ".join(dict.fromkeys(self.names)) or "nothing"
            message = f"no descriptor {key!r} was passed to this process (passed: {names})"
            raise _NotPassedError(message)
        for passed in matching:
            if passed.index not in self._taken:
                return passed
        message = f"cannot take the passed descriptor {key!r}: it was taken already"
        raise errors.UsageError(message, hint="a typo in a name, or two uses of one address")

    def _check(self, passed: Passed, key: str | int, kind: str | None) -> None:
        if kind is not None and kind not in KINDS:
            message = f"there is no kind of socket {kind!r} (known: {', '.join(KINDS)})"
            raise errors.UsageError(message)
        what = f"the passed descriptor {key!r} (fd {passed.fd})"
        try:
            nature = look_up_nature(passed.fd)
        except OSError as error:
            message = f"cannot take {what}: {(error.strerror or str(error)).lower()}"
            raise errors.ConfigError(message) from error
        if kind is None or nature.kind == kind or (kind == "any" and nature.is_socket):
            return
        wanted = "a socket" if kind == "any" else kind
        message = f"cannot take {what} as {wanted}: it is {nature.words}"
        raise errors.ConfigError(message)

    def _hand_out(self, passed: Passed) -> socket.socket:
        taken = _open_socket(passed.fd)
        self._taken.add(passed.index)
        return taken


class _NotPassedError(errors.ConfigError):
    """Nothing was passed under that name or at that place."""


def _open_socket(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)  # noqa: FBT003 - the call has no name for it
    opened = socket.socket(fileno=fd)
    # Python keeps its own idea of blocking; without this it would disagree with the kernel's flag.
    opened.setblocking(os.get_blocking(fd))
    return opened


def _classify(looked_at: socket.socket) -> Nature:
    kind = _name_kind(looked_at.family, looked_at.type, looked_at.proto)
    if kind is None:
        numbers = f"{int(looked_at.family)}, {int(looked_at.type)}, {looked_at.proto}"
        return Nature(kind="other", words=f"a socket of family, type and protocol {numbers}")
    if looked_at.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return Nature(kind=kind, words=f"a listening {kind} socket", listens=True)
    if _has_peer(looked_at):
        return Nature(kind="connection", words=f"a connected {kind} socket")
    if looked_at.type == socket.SOCK_DGRAM:
        return Nature(kind=kind, words=f"a {kind} socket")
    return Nature(kind="other", words=f"a {kind} socket that does not listen")


def _name_kind(family: int, form: int, protocol: int) -> str | None:
    if family in (socket.AF_INET, socket.AF_INET6):
        # Also SCTP can be a stream, and UDP-Lite a datagram: those are not what was asked for.
        if form == socket.SOCK_STREAM and protocol in (0, socket.IPPROTO_TCP, _MPTCP):
            return "tcp"
        if form == socket.SOCK_DGRAM and protocol in (0, socket.IPPROTO_UDP):
            return "udp"
        return None
    if family == socket.AF_UNIX:
        return _UNIX_KINDS.get(form)
    connects = form in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    return "vsock" if connects and family == getattr(socket, "AF_VSOCK", None) else None


def _has_peer(looked_at: socket.socket) -> bool:
    try:
        looked_at.getpeername()
    except OSError:
        return False
    return True


def _describe_mode(mode: int) -> str:
    for test, words in (
        (stat.S_ISREG, "a file"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return words
    return "something without a file type"
