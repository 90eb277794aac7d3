"""The steps of a start that forks nothing: each process is a fresh interpreter.

Loaded only for such a start. They stand in the place of JudgeFork, Fork,
StartSession and ForkAgain.
"""

from __future__ import annotations

from forkfirst.plan import steps
from forkfirst.plan.steps import Step


class Spawn(Step):
    """Execute a fresh interpreter as the session leader: safe whatever is alive here."""

    manual = "posix_spawn(3)"
    taken_in = "fresh.interpreter"
    sysv = 5
    name: str
    module: str

    def describe(self) -> str:
        return "execute a fresh interpreter in a new session, without a terminal; fork nothing"


class SpawnAgain(Step):
    """Execute another one as the service: no session leader, so it can never gain a terminal."""

    manual = "posix_spawn(3)"
    taken_in = "fresh.interpreter"
    sysv = 7
    name: str
    module: str

    def describe(self) -> str:
        return "execute the service's interpreter; the session leader watches until READY"


def plan_first(name: str, module: str) -> tuple[Step, ...]:
    """Return the steps of the launcher; *module* is what the service imports early, or ""."""
    return (
        steps.HoldStandardDescriptors(),
        steps.OpenReport(),
        Spawn(name=name, module=module),
    )


def plan_leader(name: str, module: str) -> tuple[Step, ...]:
    """Return the steps of the session leader."""
    return (SpawnAgain(name=name, module=module),)
