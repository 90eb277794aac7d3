"""The tables from step to function: nothing that can be planned is without one."""

from __future__ import annotations

import pytest

from forkfirst.plan import confinement, steps
from forkfirst.stages import apply

KINDS = [
    *steps.Step.__subclasses__(),
    *(kind for kind in vars(confinement).values() if isinstance(kind, type)),
]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {steps.Step}, key=lambda kind: kind.__name__))
def test_every_step_has_a_function(kind: type[steps.Step]) -> None:
    """A step that nobody can take would fail in the middle of a start."""
    assert callable(apply.TABLE[kind])
