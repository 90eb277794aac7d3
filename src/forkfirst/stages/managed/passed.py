"""Takes what was passed to this process: listeners, stored descriptors, one connection."""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.plan import adoption, keeping
from forkfirst.plan.host import PassedDescriptor
from forkfirst.systemd import activation, listeners
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host
    from forkfirst.plan.service import Declaration
    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table
    from forkfirst.systemd.activation import Passed

_STDERR = 2
_PATIENCE = 1.0
"""Seconds that one message may wait for room in the manager's queue."""


def take(host: Host, service: Declaration) -> Host:
    """Return *host* with what was passed; the variables are removed, so no child takes it again.

    Raises:
        ConfigError: A variable is malformed, or a descriptor that it counts is closed.
        UsageError: Threads are running already.
    """
    passed = tuple(_look_at(one) for one in activation.take_environment())
    connected = service.inetd and not passed and _is_connection(0) and _is_connection(1)
    return replace(host, passed=passed, connected_input=connected)


def _look_at(one: Passed) -> PassedDescriptor:
    kind = listeners.look_up_nature(one.fd).kind
    return PassedDescriptor(
        name=one.name, fd=one.fd, kind=kind, listener=_find_kept(one.name, one.fd, kind)
    )


def _find_kept(name: str, fd: int, kind: str) -> str:
    """Return the listener of ours that was kept as *name*, if *fd* still is that; or ""."""
    said = keeping.read_name(name)
    if said is None:
        return ""
    from forkfirst.plan.listener import parse_listener  # noqa: PLC0415 - only where one is kept
    from forkfirst.unix import sockets  # noqa: PLC0415 - as above

    text, identity = said
    try:
        listener = parse_listener(text)
        path = f"@{listener.abstract}" if listener.abstract is not None else listener.path
        sockets.adopt(fd, port=listener.port or None, path=path)
    except errors.ForkfirstError:
        return ""
    if listener.path is not None and sockets.look_up_unix_path(listener.path) != identity:
        return ""  # somebody has removed the path, or has it now: nobody would come to this one
    return text if kind == listener.kind else ""


def _is_connection(fd: int) -> bool:
    try:
        nature = listeners.look_up_nature(fd)
    except OSError:
        return False
    return nature.is_socket and not nature.listens


def _adopt_listener(step: adoption.AdoptListener, start: Start) -> None:
    try:
        nature = listeners.look_up_nature(step.fd)
    except OSError as error:
        message = f'cannot take descriptor {step.fd} for "{step.name}": it is not open'
        raise errors.ConfigError(message, hint="whoever starts this must pass it") from error
    if nature.kind not in adoption.LISTENING:
        message = f'cannot take descriptor {step.fd} for "{step.name}": it is {nature.words}'
        raise errors.ConfigError(message)
    os.set_inheritable(step.fd, False)  # noqa: FBT003 - the call has no name for it
    start.listeners.append((step.name, step.fd))
    start.adopted.add(step.fd)
    start.held_outside = True


def _keep_descriptor(step: adoption.KeepDescriptor, start: Start) -> None:
    os.set_inheritable(step.fd, False)  # noqa: FBT003 - as above
    start.stored.append((step.name, step.fd))


def _take_back_listener(step: adoption.TakeBackListener, start: Start) -> None:
    start.listeners.append((step.listener.name, step.fd))
    if step.spread:
        from forkfirst.stages import listeners as opening  # noqa: PLC0415 - few services are spread

        start.spread[step.fd] = opening.join_sockets(step, step.fd)
    if step.listener.path is not None:
        start.made_path(step.listener.path)


def _forget_listeners(step: adoption.ForgetListeners, _: Start) -> None:
    from forkfirst.plan.listener import parse_listener  # noqa: PLC0415 - only where one is kept
    from forkfirst.systemd import notify  # noqa: PLC0415 - as above
    from forkfirst.unix import sockets  # noqa: PLC0415 - as above

    notifier = notify.Notifier.from_environment(os.environ, timeout=_PATIENCE)
    for one in step.kept:
        said = keeping.read_name(one.name)
        path = parse_listener(one.listener).path if one.listener else None
        if path is not None and said is not None and said[1] is not None:
            sockets.remove_unix_path(path, said[1])
        os.close(one.fd)
        if notifier is not None:
            notifier.remove_stored(one.name)
    if notifier is not None:
        notifier.barrier()  # then they are closed there as well, and their addresses free


def _take_connection(step: adoption.TakeConnection, start: Start) -> None:
    os.set_inheritable(step.fd, False)  # noqa: FBT003 - as above
    start.connection = step.fd
    if step.fd != 0:
        return
    # inetd's way: what the program prints must not become part of the conversation.
    start.connection = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    own_log = not os.path.sameopenfile(0, _STDERR)
    os.dup2(nothing, 0)
    os.dup2(_STDERR if own_log else nothing, 1)
    os.close(nothing)


TABLE: Table = {
    adoption.AdoptListener: _adopt_listener,
    adoption.KeepDescriptor: _keep_descriptor,
    adoption.TakeBackListener: _take_back_listener,
    adoption.ForgetListeners: _forget_listeners,
    adoption.TakeConnection: _take_connection,
}
