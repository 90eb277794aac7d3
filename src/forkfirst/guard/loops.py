"""Event loops of this thread: running, or created and not closed.

Looks only at libraries that are already imported; a loop of another thread is seen by its thread,
and a loop that nobody can name by its epoll (see `descriptors`).
"""

from __future__ import annotations

import sys

from forkfirst.guard.descriptors import count_registrations
from forkfirst.guard.hazard import Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RUNNING = "a forked child would wait in the loop that its parent runs, on the same epoll"
_IDLE = (
    "a forked child would hang in epoll_wait, or take its parent's events:"
    " both processes would share one epoll"
)


def find_loop_hazards() -> list[Hazard]:
    """Return the loops of this thread, one hazard each."""
    return [*_find_running(), *_find_idle()]


def look_up_owned_descriptors() -> dict[int, str]:
    """Return the epoll descriptors whose owner is known, with the owner's name.

    An epoll of gevent is owned by a hub that makes itself a new one in a child.
    """
    owned = {}
    for loop in (_running_asyncio_loop(), _current_asyncio_loop()):
        descriptor = _selector_descriptor(loop)
        if descriptor >= 0:
            owned[descriptor] = "asyncio"
    hub = _gevent_hub()
    descriptor = _call_or(-1, getattr(getattr(hub, "loop", None), "fileno", None))
    if isinstance(descriptor, int) and descriptor >= 0:
        owned[descriptor] = "gevent"
    poller = getattr(_twisted_reactor(), "_poller", None)
    descriptor = _call_or(-1, getattr(poller, "fileno", None))
    if isinstance(descriptor, int) and descriptor >= 0:
        owned[descriptor] = "twisted"
    return owned


def _find_running() -> list[Hazard]:
    names = []
    loop = _running_asyncio_loop()
    if loop is not None:
        names.append(_name_loop(loop))
    trio = sys.modules.get("trio._core._run")
    if trio is not None and hasattr(getattr(trio, "GLOBAL_RUN_CONTEXT", None), "runner"):
        names.append("a trio run")
    if getattr(_twisted_reactor(), "running", False):
        names.append("the Twisted reactor")
    sniffed = getattr(getattr(sys.modules.get("sniffio._impl"), "thread_local", None), "name", None)
    if sniffed is not None and not names:
        names.append(f"a loop of {sniffed}")
    return [
        Hazard(
            kind="running-loop",
            certainty="fatal",
            subject=f"{name} is running in this thread",
            name=name,
            things=(f"running loop {name}",),
            consequence=_RUNNING,
            remedy="fork before the loop is started, and run it in the child",
        )
        for name in names
    ]


def _find_idle() -> list[Hazard]:
    found = []
    loop = _current_asyncio_loop()
    if loop is not None and loop is not _running_asyncio_loop():
        descriptor = _selector_descriptor(loop)
        # A uvloop that never ran has registered nothing, and is known to survive; one that did
        # run is seen by the registrations of its epoll.
        if descriptor >= 0 or not type(loop).__module__.startswith("uvloop"):
            found.append(_idle(f"{_name_loop(loop)} created, not running", descriptor))
    reactor = _twisted_reactor()
    if reactor is not None and not getattr(reactor, "running", False):
        poller = getattr(reactor, "_poller", None)
        descriptor = _call_or(-1, getattr(poller, "fileno", None))
        if isinstance(descriptor, int) and descriptor >= 0:
            found.append(_idle("the Twisted reactor, imported, not running", descriptor))
    return found


def _idle(detail: str, descriptor: int) -> Hazard:
    if descriptor >= 0:
        count = count_registrations(descriptor)
        plural = "" if count == 1 else "s"
        subject = f"1 epoll descriptor with {count} registration{plural} (fd {descriptor})"
    else:
        subject = "1 event loop"
    return Hazard(
        kind="idle-loop",
        certainty="fatal",
        subject=subject,
        detail=detail,
        name=detail,
        things=(f"fd {descriptor}",) if descriptor >= 0 else (detail,),
        consequence=_IDLE,
        remedy="create the loop inside main()",
    )


def _running_asyncio_loop() -> Any:
    events = sys.modules.get("asyncio.events")
    return _call_or(None, getattr(events, "_get_running_loop", None))


def _current_asyncio_loop() -> Any:
    """Return the loop that is set as the current one of this thread and not closed, or None.

    The names are private; where they are gone (after 3.14's policies) nothing is returned and the
    loop is seen by its epoll alone. `asyncio.get_event_loop()` would create one where none is.
    """
    events = sys.modules.get("asyncio.events")
    local = getattr(getattr(events, "_event_loop_policy", None), "_local", None)
    loop = getattr(local, "_loop", None)
    closed = _call_or(None, getattr(loop, "is_closed", None))
    return loop if closed is False else None


def _selector_descriptor(loop: Any) -> int:
    """Return the epoll descriptor of an asyncio loop, or -1: uvloop's cannot be asked for."""
    selector = getattr(loop, "_selector", None)
    descriptor = _call_or(-1, getattr(selector, "fileno", None))
    return descriptor if isinstance(descriptor, int) else -1


def _gevent_hub() -> Any:
    local = sys.modules.get("gevent._hub_local")
    return _call_or(None, getattr(local, "get_hub_if_exists", None))


def _twisted_reactor() -> Any:
    return sys.modules.get("twisted.internet.reactor")


def _name_loop(loop: Any) -> str:
    module = type(loop).__module__.partition(".")[0]
    return "an asyncio loop" if module == "asyncio" else f"a {module} loop"


def _call_or(default: object, function: Any) -> Any:
    """Call what another library named privately; a change over there must never fail a fork."""
    try:
        return default if function is None else function()
    except Exception:  # noqa: BLE001 - whatever it is, it means that nothing can be seen there
        return default
