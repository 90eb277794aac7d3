"""A socket for each worker: which listeners have that, and how many sockets a start opens.

It is what `reuseport` asks for where there are workers. Loaded only then.
"""

from __future__ import annotations

from forkfirst.plan.preparation import OpenListener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.listener import Listener
    from forkfirst.plan.service import Declaration

_MOST_PASSED = 200
"""Sockets of one start that are passed on in one message, which takes 253 descriptors. A supervisor
opens what lacks by itself."""

_YIELD_SECONDS = 1.0
"""A client that does not hear the first answer of a handshake is told again after that time."""


def is_spread(service: Declaration, listener: Listener) -> bool:
    """Return whether each worker is to have a socket of its own on *listener*."""
    return bool(service.workers and listener.kind == "tcp" and listener.options.reuseport)


def plan_opening(service: Declaration, listener: Listener) -> OpenListener:
    """Return the step that opens *listener*, on as many sockets as it is to have."""
    if not is_spread(service, listener):
        return OpenListener(listener=listener)
    several = sum(is_spread(service, one) for one in service.listeners)
    most = max(1, _MOST_PASSED // several)
    return OpenListener(listener=listener, spread=min(service.workers, most))


def compute_yield_seconds(service: Declaration) -> float:
    """Return how long connections may still come to a socket that is not dealt any; 0 if none is.

    They are those of whom the kernel knew before: their handshake is under way, or with
    `deferaccept` their first bytes are.
    """
    spread = [one for one in service.listeners if is_spread(service, one)]
    if not spread:
        return 0.0
    return _YIELD_SECONDS + max(one.options.deferaccept or 0 for one in spread)
