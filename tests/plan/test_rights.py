"""Where in a plan privileges go, and what a managed service's plan does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forkfirst.errors import ConfigError, PermissionRefusedError
from forkfirst.plan.host import Host, Identity
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.order import make_plan
from forkfirst.plan.service import Declaration

if TYPE_CHECKING:
    from forkfirst.plan.plan import Plan

NOBODY = Identity(name="nobody", uid=65534, gid=65534, groups=(65534,), home="/nonexistent")


def _plan(
    *, foreground: bool = False, host: dict[str, object] | None = None, **fields: object
) -> Plan:
    facts = {"uid": 0, "pid": 4711, "home": "/root", "directory": "/", "identity": NOBODY}
    declared = {"target": "/srv/app.py:main", "user": "nobody", **fields}
    service = Declaration(
        name="app",
        listeners=(parse_listener("web=127.0.0.1:443"),),
        **declared,  # type: ignore[arg-type]  # fields of a test
    )
    merged = {**facts, **(host or {})}
    return make_plan(service, Host(**merged), foreground=foreground)  # type: ignore[arg-type]  # as above


def _names(plan: Plan) -> list[str]:
    return [type(step).__name__ for step in plan.steps]


@pytest.mark.parametrize("foreground", [False, True])
def test_everything_is_open_before_the_drop_and_no_thread_is_there_yet(foreground: bool) -> None:  # noqa: FBT001 - a table
    """Capabilities are a thread's own; and root's port, log and lock need root."""
    names = _names(_plan(foreground=foreground, log="/var/log/app.log"))
    drop = names.index("DropPrivileges")
    for before in ("LockPidFile", "OpenLog", "OpenListener", "OpenControlSocket", "WritePid"):
        assert names.index(before) < drop
    for after in ("ServeControl", "RunProgram"):
        assert drop < names.index(after)
    assert names[names.index("LoadModules") :][:7] == [
        *("LoadModules", "DropPrivileges", "ClearCapabilities", "ForbidNewPrivileges"),
        *("SetNotDumpable", "VerifyDropped", "ServeControl"),
    ]


def test_the_root_directory_changes_while_it_may_and_paths_follow() -> None:
    """They are given as they are outside, and used as they are inside."""
    plan = _plan(chroot="/srv", directory="/srv/data")
    names = _names(plan)
    assert names.index("LoadModules") < names.index("ChangeRoot") < names.index("DropPrivileges")
    assert plan.service.target == "/app.py:main"
    assert plan.service.directory == "/data"
    with pytest.raises(ConfigError, match="not below its new root directory"):
        _plan(chroot="/elsewhere")


def test_who_is_that_user_already_gives_nothing_up() -> None:
    """The same file serves a unit with User=."""
    plan = _plan(host={"uid": 65534}, foreground=True)
    assert "DropPrivileges" not in _names(plan)
    with pytest.raises(PermissionRefusedError, match="only root can"):
        _plan(host={"uid": 1000})


def test_a_managed_service_locks_nothing_and_notes_nothing() -> None:
    """Its manager knows who runs; a socket to be asked needs a directory of the manager's."""
    managed = {"manager": "sd_notify", "notified": True}
    names = _names(_plan(foreground=True, host=managed))
    absent = ("LockPidFile", "WritePid", "KeepRecord", "OpenControlSocket", "OpenLog", "Fork")
    assert not set(absent) & set(names)
    assert names.index("TellManager") < names.index("DropPrivileges")
    placed = _plan(foreground=True, host={**managed, "runtime_directory": "/run/app"})
    assert placed.places.control_socket == "/run/app/app.sock"
    assert "LockPidFile" in _names(_plan(host={"manager": "sd_notify"}))  # a daemon has none
