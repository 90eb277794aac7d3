"""A socket for each worker: how many sockets a start opens, and how one is let go.

It is what `reuseport` asks for where there are workers. Loaded only then.
"""

from __future__ import annotations

from forkfirst.plan.preparation import OpenListener
from forkfirst.plan.service import is_spread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.listener import Listener
    from forkfirst.plan.service import Declaration

_MOST_PASSED = 200
"""Sockets of one start that are passed on in one message, which takes 253 descriptors. A supervisor
opens what lacks by itself."""

_YIELD_SECONDS = 1.0
"""A client that does not hear the first answer of a handshake is told again after that time."""


def plan_opening(service: Declaration, listener: Listener) -> OpenListener:
    """Return the step that opens *listener*, on as many sockets as it is to have."""
    if not is_spread(service, listener):
        return OpenListener(listener=listener)
    several = sum(is_spread(service, one) for one in service.listeners)
    most = max(1, _MOST_PASSED // several)
    return OpenListener(listener=listener, spread=min(service.workers, most))


def compute_yield_seconds(service: Declaration) -> float:
    """Return how long connections may still come to a socket that is not dealt any.

    They are those of whom the kernel knew before: their handshake is under way, or with
    `deferaccept` their first bytes are.
    """
    spread = (one for one in service.listeners if is_spread(service, one))
    return _YIELD_SECONDS + max(one.options.deferaccept or 0 for one in spread)
