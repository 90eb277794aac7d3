"""The steps that come before anything is known of the service: they are the same for every daemon.

Apart from `order`, because they are taken before the launcher has read its own arguments.
"""

from __future__ import annotations

from forkfirst.plan import steps

FIRST_STEPS = (
    steps.HoldStandardDescriptors(),
    steps.JudgeFork(),
    steps.OpenReport(),
    steps.Fork(),
)
"""In the launcher."""

LEADER_STEPS = (steps.StartSession(), steps.ForkAgain())
"""In the session leader."""


def plan_early(module: str) -> tuple[steps.Step, ...]:
    """Return the steps of the service while it waits for its plan: import *module*, if any."""
    return (steps.ImportRuntimeModule(module=module),) if module else ()


def early_module(target: str, runtime: str) -> str:
    """Return the module that is worth importing early for *target* on *runtime*, or ""."""
    return "asyncio" if target and runtime in ("auto", "asyncio") else ""
