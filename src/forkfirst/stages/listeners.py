"""Opens a listener: from the value that was planned to the descriptor that is passed on."""

from __future__ import annotations

from forkfirst import errors
from forkfirst.unix import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.listener import Listener


def open_listener(listener: Listener, *, reuseaddr: bool = True) -> int:
    """Bind *listener* and listen, unless its kind does not.

    Args:
        listener: What to open.
        reuseaddr: Whether old connections of a predecessor on a TCP port do not matter.

    Raises:
        AddressInUseError: Somebody has that address; the text says who, where that can be seen.
        CannotCreateError: The path cannot be made.
        PermissionRefusedError: This user may not have that address.
    """
    match listener.kind:
        case "tcp" | "udp":
            return _open_internet(listener, reuseaddr=reuseaddr)
        case "vsock":
            return sockets.open_vsock(
                listener.cid, listener.port or 0, backlog=listener.options.backlog
            )
        case "unix" | "unixgram" | "seqpacket":
            return _open_unix(listener)
    message = f"cannot listen on {listener}: this start was passed no descriptors"
    raise errors.ConfigError(message)


def _open_internet(listener: Listener, *, reuseaddr: bool) -> int:
    options = listener.options
    if listener.kind == "udp":
        return sockets.open_udp(
            listener.host,
            listener.port or 0,
            scope=listener.scope,
            ipv6only=options.ipv6only,
            reuseport=options.reuseport,
            freebind=options.freebind,
        )
    return sockets.open_tcp(
        listener.host,
        listener.port or 0,
        scope=listener.scope,
        backlog=options.backlog,
        ipv6only=options.ipv6only,
        reuseaddr=reuseaddr,
        reuseport=options.reuseport,
        nodelay=options.nodelay,
        keepalive=options.keepalive,
        deferaccept=options.deferaccept,
        freebind=options.freebind,
    )


def _open_unix(listener: Listener) -> int:
    options = listener.options
    if listener.abstract is not None:
        return sockets.open_abstract(listener.abstract, kind=listener.kind, backlog=options.backlog)
    from forkfirst.unix import accounts  # noqa: PLC0415 - only for a path

    assert listener.path is not None  # noqa: S101 - one of the two, by the grammar
    return sockets.open_unix(
        listener.path,
        kind=listener.kind,
        backlog=options.backlog,
        mode=options.mode,
        owner=None if options.owner is None else accounts.look_up_user(options.owner).uid,
        group=None if options.group is None else accounts.look_up_group(options.group),
    )
