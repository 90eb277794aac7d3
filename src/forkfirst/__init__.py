"""forkfirst runs any async program as a well-behaved Unix service: first fork, then the runtime.

Everything public is here, and loaded when it is first used: to import forkfirst costs nothing, and
imports no runtime.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.errors import ForkfirstError, UnsafeFork
    from forkfirst.guard.hazard import Hazard, Origin
    from forkfirst.guard.tripwire import allow_fork, tripwire
    from forkfirst.guard.verdict import assert_fork_safe, hazards
    from forkfirst.inside.connecting import connect
    from forkfirst.inside.ensuring import ensure_running, ensure_running_async
    from forkfirst.inside.spawning import Started, spawn, spawn_async
    from forkfirst.runtime.context import Context
    from forkfirst.service import Service, run
    from forkfirst.unix.children import waitpid, waitpid_nohang
    from forkfirst.unix.daemon import daemon
    from forkfirst.unix.session import Fork, fork, setsid
    from forkfirst.unix.stdio import close_fd, redirect_stdio

__version__ = "0.1.0"

__all__ = [
    "Context",
    "Fork",
    "ForkfirstError",
    "Hazard",
    "Origin",
    "Service",
    "Started",
    "UnsafeFork",
    "__version__",
    "allow_fork",
    "assert_fork_safe",
    "close_fd",
    "connect",
    "daemon",
    "ensure_running",
    "ensure_running_async",
    "fork",
    "hazards",
    "redirect_stdio",
    "run",
    "setsid",
    "spawn",
    "spawn_async",
    "tripwire",
    "waitpid",
    "waitpid_nohang",
]

_HOMES = {
    "Context": "runtime.context",
    "Fork": "unix.session",
    "ForkfirstError": "errors",
    "Hazard": "guard.hazard",
    "Origin": "guard.hazard",
    "Service": "service",
    "Started": "inside.spawning",
    "UnsafeFork": "errors",
    "allow_fork": "guard.tripwire",
    "assert_fork_safe": "guard.verdict",
    "close_fd": "unix.stdio",
    "connect": "inside.connecting",
    "daemon": "unix.daemon",
    "ensure_running": "inside.ensuring",
    "ensure_running_async": "inside.ensuring",
    "fork": "unix.session",
    "hazards": "guard.verdict",
    "redirect_stdio": "unix.stdio",
    "run": "service",
    "setsid": "unix.session",
    "spawn": "inside.spawning",
    "spawn_async": "inside.spawning",
    "tripwire": "guard.tripwire",
    "waitpid": "unix.children",
    "waitpid_nohang": "unix.children",
}


def __getattr__(name: str) -> object:
    """Load what is public where it lives, when it is asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module = __import__(f"{__name__}.{home}", fromlist=[name])
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return __all__
