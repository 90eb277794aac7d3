"""Who may ask a service: its own user and root, by what the kernel knows of the caller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forkfirst.control.client import ask
from support.child_program import NOBODY, run_child
from support.control_service import PATIENCE, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user"),
]

# Imports come first: the interpreter may be in a directory that only root can pass.
_ASK_AS = """
import json, os, sys
from forkfirst.control.client import ask
from forkfirst.errors import ForkfirstError

path, uid, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
try:
    outcome = ["answered", ask(path, "echo", seconds=20, text=text)["text"]]
except ForkfirstError as error:
    outcome = [type(error).__name__, str(error).rpartition(": ")[2]]
print(json.dumps(outcome))
"""


def _ask_as(uid: int, path: str, text: str = "hello") -> list[str]:
    outcome: list[str] = run_child(_ASK_AS, path, str(uid), text)
    return outcome


def _open_to_all(path: str) -> None:
    """Take the file modes out of the way, so that only the credentials are left to refuse."""
    Path(path).parent.chmod(0o711)
    Path(path).chmod(0o666)


@pytest.fixture
def own() -> Iterator[str]:
    """A service that answers its own user, with a path that everybody can open."""
    serve: AbstractContextManager[str] = serving(allowed_uids=frozenset({os.getuid()}))
    with serve as path:
        _open_to_all(path)
        yield path


def test_another_user_is_refused_by_name(own: str) -> None:
    """N15: whoever could open the path could end the service."""
    assert _ask_as(NOBODY, own) == ["PermissionRefusedError", "not permitted for uid 65534"]


def test_a_user_who_was_refused_took_nothing_from_the_others(own: str) -> None:
    """Neither a place among the connections nor a moment of waiting."""
    for _ in range(3):
        _ask_as(NOBODY, own, "x" * 30_000)
    assert ask(own, "echo", text="alive", seconds=PATIENCE) == {"text": "alive"}


def test_without_the_check_the_same_user_would_be_answered() -> None:
    """It is the credentials that refuse, and nothing else on the way."""
    with serving(allowed_uids=frozenset({NOBODY})) as path:
        _open_to_all(path)
        assert _ask_as(NOBODY, path) == ["answered", "hello"]
        assert _ask_as(NOBODY - 1, path) == [
            "PermissionRefusedError",
            "not permitted for uid 65533",
        ]


def test_root_is_always_answered() -> None:
    """Who may end the process anyway may ask it."""
    with serving(allowed_uids=frozenset({NOBODY})) as path:
        assert ask(path, "echo", text="root") == {"text": "root"}


def test_the_mode_of_the_path_refuses_before_that() -> None:
    """Two locks: a mistake in one of them lets nobody in."""
    with serving(allowed_uids=frozenset({NOBODY})) as path:
        Path(path).parent.chmod(0o711)
        assert _ask_as(NOBODY, path) == ["PermissionRefusedError", "permission denied"]
