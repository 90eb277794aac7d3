"""What may be declared, and what is refused in one line."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.errors import ConfigError
from forkfirst.plan.service import (
    Declaration,
    check_name,
    check_service,
    name_from_target,
)

SAFE = frozenset(string.ascii_letters + string.digits + "_.@-")


@given(st.text(max_size=80))
def test_a_name_that_is_accepted_is_a_files_name_and_no_option(name: str) -> None:
    """It becomes NAME.pid and NAME.sock, and is typed after `stop`."""
    try:
        check_name(name)
    except ConfigError as error:
        assert repr(name) in str(error)  # noqa: PT017 - either outcome is right
        return
    assert 1 <= len(name) <= 64
    assert set(name) <= SAFE
    assert not name.startswith(("-", "."))


@given(st.from_regex(r"[A-Za-z0-9_@][A-Za-z0-9_.@-]{0,63}", fullmatch=True))
def test_a_good_name_is_accepted(name: str) -> None:
    """The rule of the message, and nothing stricter."""
    check_name(name)


@pytest.mark.parametrize(
    ("target", "command", "name"),
    [
        ("app.py:main", (), "app"),
        ("/srv/site/app.py:main", (), "app"),
        ("package.module:main", (), "module"),
        ("module:main", (), "module"),
        ("my.app.py:main", (), "my.app"),
        ("", ("/usr/bin/redis-server", "--port", "0"), "redis-server"),
        ("", ("./run.py",), "run"),
        ("", ("bin/",), "bin"),
    ],
)
def test_a_service_is_called_after_its_program(
    target: str, command: tuple[str, ...], name: str
) -> None:
    """The file's stem, the module's last part, or the command's own name."""
    assert name_from_target(target, command) == name


GOOD: dict[str, Any] = {"name": "app", "target": "app:main"}


def test_what_was_not_said_has_a_default() -> None:
    """And the defaults are possible."""
    check_service(Declaration(**GOOD))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "'' cannot name a service"),
    ({"name": "a/b"}, "'a/b' cannot name a service"),
    ({"target": ""}, "give either a target or a command"),
    ({"command": ("a",)}, "give either a target or a command"),
    ({"runtime": "curio"}, "runtime 'curio' is not one of auto, asyncio, uvloop, trio, none"),
    ({"umask": -1}, "umask"),
    ({"umask": 0o1000}, "umask 0o1000 is not between 0 and 0o777"),
    ({"ready_seconds": 0.0}, "ready-timeout must be a positive number of seconds"),
    ({"ready_seconds": float("inf")}, "ready-timeout"),
    ({"grace_seconds": -1.0}, "grace-period"),
    ({"grace_seconds": float("nan")}, "grace-period"),
    ({"settle_seconds": -1.0}, "settle must be 0 or more"),
    ({"settle_seconds": float("nan")}, "settle"),
    ({"log_size": -1}, "log-size must be 0 or more"),
    ({"log_keep": -1}, "log-keep must be 0 or more"),
    ({"hang_seconds": 20.0}, "hang-timeout means nothing without workers"),
    ({"max_requests": 9}, "max-requests means nothing without workers"),
    ({"commit_seconds": 9.0}, "commit-window means nothing without workers"),
    ({"environment": (("", "x"),)}, "'' cannot name an environment variable"),
    ({"environment": (("A=B", "x"),)}, "'A=B' cannot name an environment variable"),
    ({"environment": (("A", "x\0"),)}, "'A' cannot name an environment variable"),
]


@pytest.mark.parametrize(("fields", "said"), BAD)
def test_what_could_not_run_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    """Before anything is done for it."""
    with pytest.raises(ConfigError) as refused:
        check_service(Declaration(**{**GOOD, **fields}))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_declaration_never_changes() -> None:
    """It is passed from process to process, and compared."""
    declared = Declaration(**GOOD)
    with pytest.raises(AttributeError):
        declared.name = "other"  # type: ignore[misc]
    assert declared == Declaration(**GOOD)
    assert hash(declared) == hash(Declaration(**GOOD))
