"""What a person writes for a server's option, and what the server is given."""

from __future__ import annotations

import enum
import pathlib
from typing import Any

import pytest

from forkfirst.errors import ConfigError
from forkfirst.runtime.serve import options


class _Mode(enum.Enum):
    FAST = "1"
    BOTH = "auto"


KNOWN: dict[str, object] = {
    "access_log": "bool",
    "backlog": int,
    "timeout": "float | None",
    "level": "str | int | None",
    "hosts": "list[str] | str | None",
    "headers": "list[tuple[str, str]] | None",
    "files": list[pathlib.Path] | None,
    "mode": _Mode,
}


@pytest.mark.parametrize(
    ("name", "given", "made"),
    [
        ("access_log", "no", False),
        ("access_log", "True", True),
        ("access_log", False, False),
        ("backlog", "512", 512),
        ("backlog", 512, 512),
        ("timeout", "0.5", 0.5),
        ("timeout", 5, 5),
        ("timeout", "none", None),
        ("level", "debug", "debug"),
        ("level", "10", 10),
        ("hosts", "a,b", ["a", "b"]),
        ("hosts", ("a", "b"), ["a", "b"]),
        ("headers", "x-by: us", [("x-by", " us")]),
        ("files", "/a,/b", [pathlib.Path("/a"), pathlib.Path("/b")]),
        ("mode", "auto", _Mode.BOTH),
        ("mode", 1, _Mode.FAST),
    ],
)
def test_a_text_or_a_typed_value_becomes_what_the_server_wants(
    name: str, given: object, made: Any
) -> None:
    """From the command line everything is a text; from a file it has a type already."""
    assert options.read("it", {name: given}, KNOWN, {}) == {name: made}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("access_log", "perhaps", "access-log: expected bool, got 'perhaps'"),
        ("backlog", "many", "expected int, got 'many'"),
        ("backlog", True, "expected int, got True"),
        ("backlog", ("1", "2"), "expected int"),
        ("mode", "3", "'3' is not one of 1, auto"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, given: object, said: str) -> None:
    """A server that is handed a text for a number fails much later, and elsewhere."""
    with pytest.raises(ConfigError) as refused:
        options.read("it", {name: given}, KNOWN, {})
    assert said in str(refused.value)


def test_an_option_that_is_not_there_names_those_that_are_like_it() -> None:
    """Most are a slip of the finger."""
    with pytest.raises(ConfigError) as refused:
        options.read("it", {"acces_logs": "no"}, KNOWN, {})
    assert str(refused.value) == "serve-option acces-logs: it has no such option"
    assert refused.value.hint == "did you mean access-log"


def test_an_option_that_is_ours_names_the_flag() -> None:
    """Two who decide the same thing are one too many."""
    with pytest.raises(ConfigError) as refused:
        options.read("it", {"workers": "3"}, KNOWN, {"workers": "give --workers"})
    assert refused.value.hint == "give --workers"
