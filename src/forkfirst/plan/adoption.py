"""Which passed descriptor is which listener, as data. Loaded only where something was passed.

A descriptor is found by its name. One that came without a name of its own, as from
`systemd-socket-activate` or a socket unit without `FileDescriptorName=`, is found by its kind, in
order. Where it listens is its sender's to say: that is what a socket unit is for. What it is, a
stream or datagrams, of which family, is not: a listener of another kind is refused.
"""

from __future__ import annotations

from forkfirst.errors import ConfigError
from forkfirst.plan import keeping
from forkfirst.plan.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host, PassedDescriptor
    from forkfirst.plan.listener import Listener
    from forkfirst.plan.preparation import OpenListener
    from forkfirst.plan.service import Declaration

LISTENING = ("tcp", "udp", "unix", "unixgram", "seqpacket", "vsock")
"""The kinds of what a program can listen on."""

CONNECTION = "connection"


class AdoptListener(Step):
    """Take a descriptor that was passed as a listener, and check what it is."""

    manual = "sd_listen_fds(3)"
    taken_in = "managed.passed"
    name: str
    fd: int

    def describe(self) -> str:
        return f"adopt descriptor {self.fd} as {self.name}, which listens already"


class KeepDescriptor(Step):
    """Take a descriptor that was passed and is no listener: one that this service has stored."""

    manual = "sd_listen_fds(3)"
    taken_in = "managed.passed"
    name: str
    fd: int

    def describe(self) -> str:
        return f"keep descriptor {self.fd}, which was passed as {self.name}"


class TakeBackListener(Step):
    """Take a listener that an earlier start has opened, and the manager has kept since.

    Attributes:
        spread: As of `OpenListener`. Of several sockets the first is kept.
    """

    manual = "sd_listen_fds(3)"
    taken_in = "managed.passed"
    listener: Listener
    fd: int
    spread: int = 0

    def describe(self) -> str:
        more = f", and open {self.spread - 1} more" if self.spread > 1 else ""
        return f"take back {self.listener.describe()}, kept on descriptor {self.fd}{more}"


class ForgetListeners(Step):
    """Close what the manager has kept of our listeners and is not declared so any more."""

    manual = "sd_notify(3)"
    taken_in = "managed.passed"
    kept: tuple[PassedDescriptor, ...]

    def describe(self) -> str:
        return "close what was kept and is declared no more: " + ", ".join(
            one.listener or one.name for one in self.kept
        )


class TakeConnection(Step):
    """Take the one connection that this process was started for."""

    manual = "systemd.socket(5)"
    taken_in = "managed.passed"
    fd: int

    def describe(self) -> str:
        return f"take the connection on descriptor {self.fd}"


def plan_listeners(service: Declaration, host: Host) -> tuple[Step, ...]:
    """Return the steps that open or adopt each listener of *service*, then what else was passed.

    What the manager has kept for us is taken back if it was declared with the same words, and else
    closed first: it has the address that its successor may want.

    Raises:
        ConfigError: A listener must be passed and was not, or what was passed is of another kind.
    """
    left = [one for one in host.passed if not keeping.is_reserved(one.name)]
    kept = [one for one in host.passed if one not in left]
    chosen: list[Step] = []
    if service.inetd or _is_for_a_connection(left):
        connection = _find_connection(service, host)
        left = [one for one in left if one.fd != connection]
        chosen.append(TakeConnection(fd=connection))
    for listener in service.listeners:
        found = _find(listener, service, left)
        chosen.extend(AdoptListener(name=listener.name, fd=one.fd) for one in found)
        left = [one for one in left if one not in found]
        if listener.number is not None and not found:  # inherited from whoever started us
            chosen.append(AdoptListener(name=listener.name, fd=listener.number))
        elif listener.inherited and not found:
            raise _missing(listener, host)
        elif not found:
            from forkfirst.plan import spreading  # noqa: PLC0415 - not where all were passed

            opening = spreading.plan_opening(service, listener)
            chosen.append(_take_back(opening, kept) or opening)
    for one in left:
        kind = AdoptListener if one.kind in LISTENING else KeepDescriptor
        chosen.append(kind(name=one.name, fd=one.fd))
    forget = (ForgetListeners(kept=tuple(kept)),) if kept else ()
    return (*forget, *chosen)


def _take_back(opening: OpenListener, kept: list[PassedDescriptor]) -> Step | None:
    """Take of *kept* what would be opened otherwise, if it is there."""
    for one in kept:
        if one.listener == str(opening.listener):
            kept.remove(one)
            return TakeBackListener(listener=opening.listener, fd=one.fd, spread=opening.spread)
    return None


def _find(
    listener: Listener, service: Declaration, left: list[PassedDescriptor]
) -> list[PassedDescriptor]:
    """Return what of *left* is *listener*: several, if it alone is called so and they all are."""
    if listener.number is not None:
        return [one for one in left if one.fd == listener.number]
    name = listener.reference or listener.name
    named = [one for one in left if one.name == name]
    wanted = [each for each in service.listeners if (each.reference or each.name) == name]
    if not named and not listener.inherited:
        # Without a name of its own: the first that fits, if nobody is called for by that name.
        called = {each.reference or each.name for each in service.listeners}
        named = [
            one
            for one in left
            if one.kind == listener.kind and one.name not in called and _is_nameless(one.name)
        ][:1]
    found = named if len(wanted) == 1 else named[:1]
    for one in found:
        if not listener.inherited and one.kind != listener.kind:
            message = (
                f'cannot listen on "{listener.name}": it is declared as {listener.kind}, but what '
                f"was passed as {one.name} (descriptor {one.fd}) is {one.kind}"
            )
            raise ConfigError(message, hint=f"to take any kind, declare systemd:{listener.name}")
    return found


def _is_nameless(name: str) -> bool:
    """Whether a sender calls a descriptor so that was given no name: libsystemd, and a unit."""
    return name in ("", "unknown") or name.endswith(".socket")


def _is_for_a_connection(passed: list[PassedDescriptor]) -> bool:
    return len(passed) == 1 and CONNECTION in (passed[0].kind, passed[0].name)


def _find_connection(service: Declaration, host: Host) -> int:
    for one in host.passed:
        if CONNECTION in (one.kind, one.name):
            return one.fd
    if host.connected_input:
        return 0
    message = f'service "{service.name}": inetd needs a connection, and none was passed'
    raise ConfigError(message, hint="it is expected on descriptor 3 with LISTEN_FDS, or on 0 and 1")


def _missing(listener: Listener, host: Host) -> ConfigError:
    names = ", ".join(dict.fromkeys(one.name for one in host.passed)) or "nothing"
    message = f"cannot listen on {listener}: no descriptor of that name was passed ({names} was)"
    hint = "" if host.passed else "is it started by its socket unit, or by systemd-socket-activate?"
    return ConfigError(message, hint=hint)
