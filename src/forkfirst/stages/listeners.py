"""Opens a listener: from the value that was planned to the descriptor that is passed on."""

from __future__ import annotations

import errno
import os

from forkfirst import errors
from forkfirst.unix import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.adoption import TakeBackListener
    from forkfirst.plan.listener import Listener
    from forkfirst.plan.preparation import OpenListener


def open_listener(listener: Listener, *, reuseaddr: bool = True, joinable: bool = False) -> int:
    """Bind *listener* and listen, unless its kind does not.

    Args:
        listener: What to open.
        reuseaddr: Whether old connections of a predecessor on a TCP port do not matter.
        joinable: Whether more sockets will be added to this TCP one, and only by us.

    Raises:
        AddressInUseError: Somebody has that address; the text says who, where that can be seen.
        CannotCreateError: The path cannot be made.
        PermissionRefusedError: This user may not have that address.
    """
    match listener.kind:
        case "tcp" | "udp":
            return _open_internet(listener, reuseaddr=reuseaddr, joinable=joinable)
        case "vsock":
            return sockets.open_vsock(
                listener.cid, listener.port or 0, backlog=listener.options.backlog
            )
        case "unix" | "unixgram" | "seqpacket":
            return _open_unix(listener)
    message = f"cannot listen on {listener}: this start was passed no descriptors"
    raise errors.ConfigError(message)


def open_sockets(step: OpenListener) -> list[int]:
    """Open the listener of *step*, on as many sockets as it says; return them in their order.

    Raises:
        ForkfirstError: As `open_listener`; or one address cannot have several sockets here.
    """
    if not step.spread:
        return [open_listener(step.listener)]
    first = open_listener(step.listener, joinable=True)
    try:
        return [first, *join_sockets(step, first)]
    except errors.ForkfirstError:
        os.close(first)
        raise


def join_sockets(step: OpenListener | TakeBackListener, first: int) -> list[int]:
    """Open the other sockets of the listener of *step*, of which *first* is there.

    Raises:
        ForkfirstError: One address cannot have several sockets here.
    """
    from forkfirst.unix import reuseport  # noqa: PLC0415 - few services are spread

    reuseport.check_possible()
    others: list[int] = []
    try:
        reuseport.steer(first, range(step.spread))
        others.extend(reuseport.join(first) for _ in range(1, step.spread))
    except OSError as error:
        for fd in others:
            os.close(fd)
        raise _explain(step, error) from error
    return others


def _explain(step: OpenListener | TakeBackListener, error: OSError) -> errors.ForkfirstError:
    if error.errno == errno.ENOPROTOOPT:
        message = f"cannot {step.describe()}: this kernel deals no connections out to several"
        hint = "leave out reuseport: the workers then share one socket"
        return errors.ConfigError(message, hint=hint)
    from forkfirst.stages import taking  # noqa: PLC0415 - only for a refusal

    return taking.explain_refusal(step, error)


def _open_internet(listener: Listener, *, reuseaddr: bool, joinable: bool) -> int:
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
        reuseport=options.reuseport and not joinable,
        joinable=joinable,
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
