"""Opens a listener: from the value that was planned to the descriptor that is passed on."""

from __future__ import annotations

from forkfirst import errors
from forkfirst.unix import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.plan.listener import Listener


def open_listener(listener: Listener) -> tuple[int, Callable[[], object] | None]:
    """Bind *listener* and listen, unless its kind does not.

    Returns:
        The descriptor, and how to remove what it left in the file system; None if nothing.

    Raises:
        AddressInUseError: Somebody has that address; the text says who, where that can be seen.
        CannotCreateError: The path cannot be made.
        PermissionRefusedError: This user may not have that address.
    """
    options = listener.options
    match listener.kind:
        case "tcp":
            return (
                sockets.open_tcp(
                    listener.host,
                    listener.port or 0,
                    scope=listener.scope,
                    backlog=options.backlog,
                    ipv6only=options.ipv6only,
                    reuseport=options.reuseport,
                    nodelay=options.nodelay,
                    keepalive=options.keepalive,
                    deferaccept=options.deferaccept,
                    freebind=options.freebind,
                ),
                None,
            )
        case "udp":
            return (
                sockets.open_udp(
                    listener.host,
                    listener.port or 0,
                    scope=listener.scope,
                    ipv6only=options.ipv6only,
                    reuseport=options.reuseport,
                    freebind=options.freebind,
                ),
                None,
            )
        case "vsock":
            return sockets.open_vsock(listener.cid, listener.port or 0, backlog=options.backlog), None
        case "unix" | "unixgram" | "seqpacket" if listener.path:
            return _open_path(listener, listener.path)
        case "unix" | "unixgram" | "seqpacket" if listener.abstract:
            fd = sockets.open_abstract(
                listener.abstract, kind=listener.kind, backlog=options.backlog
            )
            return fd, None
    message = f"cannot listen on {listener}: this start was passed no descriptors"
    raise errors.ConfigError(message)


def _open_path(listener: Listener, path: str) -> tuple[int, Callable[[], object]]:
    from forkfirst.unix import accounts, socket_paths  # noqa: PLC0415 - only for a path

    options = listener.options
    fd = socket_paths.open_unix(
        path,
        kind=listener.kind,
        backlog=options.backlog,
        mode=options.mode,
        owner=None if options.owner is None else accounts.look_up_user(options.owner).uid,
        group=None if options.group is None else accounts.look_up_group(options.group),
    )
    identity = socket_paths.look_up_unix_path(path)
    assert identity is not None  # noqa: S101 - it was bound a moment ago
    return fd, lambda: socket_paths.remove_unix_path(path, identity)
