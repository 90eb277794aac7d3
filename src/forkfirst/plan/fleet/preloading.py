"""The steps of a template, and of the workers that are forked from it, as data."""

from __future__ import annotations

from forkfirst.plan.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.service import Declaration

PREFER, REQUIRE = "prefer", "require"
"""What `--preload` means where the program cannot be forked: plain workers, or none."""


class Preload(Step):
    """Import the program once, put what was made aside for good, and judge before every fork."""

    manual = "fork(2)"
    taken_in = "preload.template"
    target: str
    required: bool

    def describe(self) -> str:
        else_ = "refuse" if self.required else "leave the import to each worker"
        return f"import {self.target}; collect, freeze; fork workers if that is safe, else {else_}"


class Renew(Step):
    """Give a forked worker what must be its own: random numbers, signals, a wake-up descriptor."""

    manual = "fork(2)"
    taken_in = "preload.template"

    def describe(self) -> str:
        return "take random state, signals and temporary names of its own"


def divide(
    program: tuple[Step, ...], service: Declaration
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return what the template takes of a worker's steps *program*, and what each worker takes.

    All but the last come before the import, and so belong to whoever imports.
    """
    required = service.preload == REQUIRE
    preload = Preload(target=service.target, required=required)
    return (*program[:-1], preload), (Renew(), program[-1])
