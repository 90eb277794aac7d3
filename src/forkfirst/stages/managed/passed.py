"""Takes what was passed to this process: listeners, stored descriptors, one connection."""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.plan import adoption
from forkfirst.plan.host import PassedDescriptor
from forkfirst.systemd import activation, listeners
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host
    from forkfirst.plan.service import Declaration
    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table

_STDERR = 2


def take(host: Host, service: Declaration) -> Host:
    """Return *host* with what was passed; the variables are removed, so no child takes it again.

    Raises:
        ConfigError: A variable is malformed, or a descriptor that it counts is closed.
        UsageError: Threads are running already.
    """
    passed = tuple(
        PassedDescriptor(name=one.name, fd=one.fd, kind=listeners.look_up_nature(one.fd).kind)
        for one in activation.take_environment()
    )
    connected = service.inetd and not passed and _is_connection(0) and _is_connection(1)
    return replace(host, passed=passed, connected_input=connected)


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
    start.held_outside = True


def _keep_descriptor(step: adoption.KeepDescriptor, start: Start) -> None:
    os.set_inheritable(step.fd, False)  # noqa: FBT003 - as above
    start.stored.append((step.name, step.fd))


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
    adoption.TakeConnection: _take_connection,
}
