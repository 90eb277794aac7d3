"""What one process of forkfirst sends to another: values and plain data, and nothing else."""

from __future__ import annotations

import copy
import marshal
import pickle

import pytest

from forkfirst import Service
from forkfirst.plan.listener import parse_listener
from forkfirst.stages import packing

CONTENTS = [
    {"again": (("forkfirst", "start"), "/srv"), "holes": [True, False], "kept": frozenset({"a"})},
    (parse_listener("web=127.0.0.1:8000"), parse_listener("unix:/run/x?mode=0660")),
    (..., 1)[1:],
    {"nested": [(parse_listener("8000"),), None, 2.5, b"\0", {}]},
]


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_sent_arrives(content: object) -> None:
    """Tuples as tuples, lists as lists, values as values of the same class."""
    assert packing.unpack(packing.pack(content)) == content


@pytest.mark.parametrize(
    ("module", "name"),
    [("subprocess", "Popen"), ("forkfirst.stages.start", "Start"), ("forkfirst.errors", "os")],
)
def test_nothing_but_a_value_of_ours_is_made(module: str, name: str) -> None:
    """A pickle would make whatever its sender names."""
    crafted = marshal.dumps((..., module, name, {}))
    with pytest.raises((TypeError, AttributeError)):
        packing.unpack(crafted)


def test_a_field_of_another_version_is_refused() -> None:
    """Two versions that differ must notice it, and not guess."""
    crafted = marshal.dumps((..., "forkfirst.plan.places", "Places", {"nowhere": "/"}))
    with pytest.raises(TypeError):
        packing.unpack(crafted)


def test_what_is_no_data_cannot_be_sent() -> None:
    """It is noticed where it is sent, by who can be blamed for it."""
    with pytest.raises(ValueError, match="unmarshallable"):
        packing.pack({"stream": object()})


def test_a_persons_declaration_can_be_copied_and_pickled() -> None:
    """It is a value: who keeps a list of services may pass it to another process."""
    service = Service(program="app:main", name="shop", listen=("8000",))
    assert copy.copy(service) == pickle.loads(pickle.dumps(service)) == service  # noqa: S301 - ours
