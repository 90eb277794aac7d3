"""The steps that come before anything is known of the service: they are the same for every daemon.

Apart from `order`, because they are taken before the launcher has read its own arguments.
"""

from __future__ import annotations

from forkfirst.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_STEPS = (
    steps.HoldStandardDescriptors(),
    steps.JudgeFork(),
    steps.OpenReport(),
    steps.Fork(),
)
"""In the launcher."""

LEADER_STEPS = (steps.StartSession(), steps.ForkAgain())
"""In the session leader."""


def is_supervised(environ: Mapping[str, str], pid: int) -> bool:
    """Return whether the process *pid*, told to detach, must not: its manager waits for its end.

    A variable counts only if it is addressed to this very process, not left over from an ancestor.
    A unit of Type=forking says so by PIDFILE: that one does want it to detach, with its sockets.
    """
    own = str(pid)
    notified = "NOTIFY_SOCKET" in environ and environ.get("SYSTEMD_EXEC_PID") == own
    activated = environ.get("LISTEN_PID") == own and "PIDFILE" not in environ
    return notified or activated


def plan_early(module: str) -> tuple[steps.Step, ...]:
    """Return the steps of the service while it waits for its plan: import *module*, if any."""
    return (steps.ImportRuntimeModule(module=module),) if module else ()


def early_module(target: str, runtime: str) -> str:
    """Return the module that is worth importing early for *target* on *runtime*, or ""."""
    return "asyncio" if target and runtime in ("auto", "asyncio") else ""
