"""The tables from step to function: nothing that can be planned is without one."""

from __future__ import annotations

import pytest

from forkfirst.plan import adoption, confinement, managing, preparation, spawning, steps
from forkfirst.plan.fleet import preloading
from forkfirst.stages import apply

KINDS: set[type[steps.Step]] = {
    kind
    for module in (steps, preparation, confinement, adoption, managing, preloading, spawning)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, steps.Step) and kind is not steps.Step
}


@pytest.mark.parametrize("kind", sorted(KINDS, key=str))
def test_every_step_has_a_function(kind: type[steps.Step]) -> None:
    """A step that nobody can take would fail in the middle of a start."""
    assert callable(apply.TABLE[kind])
