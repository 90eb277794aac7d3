"""The typed shape of a configuration file. Imported only where there is one: it needs msgspec."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from forkfirst import errors

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


_LISTS = ("listen", "supplementary", "keep-capability", "limit", "serve-option")


class _Service(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", omit_defaults=True):
    """One `[service.NAME]` table: the keys are the flags of `forkfirst start`."""

    target: str | None = None
    command: list[str] | None = None
    listen: list[str] | str | None = None
    runtime: str | None = None
    serve: str | None = None
    serve_option: dict[str, bool | int | float | str | list[str]] | list[str] | str | None = None
    chdir: str | None = None
    umask: int | str | None = None
    env: dict[str, str] | None = None
    env_file: str | None = None
    log: str | None = None
    log_size: int | str | None = None
    log_keep: int | None = None
    ready_timeout: float | str | None = None
    grace_period: float | str | None = None
    settle: float | str | None = None
    notify_fd: int | None = None
    pid_file: str | None = None
    workers: int | None = None
    preload: bool | str | None = None
    restart_policy: str | None = None
    crash_limit: int | None = None
    hang_timeout: float | str | None = None
    max_age: float | str | None = None
    max_memory: int | str | None = None
    max_requests: int | None = None
    canary: float | str | None = None
    commit_window: float | str | None = None
    user: str | int | None = None
    group: str | int | None = None
    supplementary: list[str | int] | str | int | None = None
    keep_capability: list[str] | str | None = None
    no_new_privileges: bool | None = None
    chroot: str | None = None
    limit: list[str] | str | None = None
    version: str | None = None
    inetd: bool | None = None


class _Allowed(msgspec.Struct, forbid_unknown_fields=True):
    """A hazard that `check` does not count, and why."""

    kind: str
    reason: str
    name: str = ""


class _Check(msgspec.Struct, forbid_unknown_fields=True):
    allow: list[_Allowed] = []


class _Root(msgspec.Struct, forbid_unknown_fields=True):
    service: dict[str, Any] = {}  # each is converted by itself, so that its name is in the error
    check: _Check = msgspec.field(default_factory=_Check)


def read(path: str) -> dict[str, dict[str, Any]]:
    """Return the table of each service in the file at *path*, by name.

    Raises:
        ConfigError: With the file, the key, and what was expected there.
    """
    root, prefix = _read_root(path)
    return {
        name: {
            key: [value] if key in _LISTS and not isinstance(value, list | dict) else value
            for key, value in msgspec.to_builtins(
                _convert(table, _Service, path, f"{prefix}service.{name}.")
            ).items()
        }
        for name, table in root.service.items()
    }


def read_allowed(path: str) -> dict[str, str]:
    """Return each allowed hazard, `kind` or `kind:name`, with the reason.

    Raises:
        ConfigError: As `read`; or a reason is empty.
    """
    root, prefix = _read_root(path)
    allowed = {}
    for number, each in enumerate(root.check.allow):
        if not each.reason.strip():
            message = f"{path}: {prefix}check.allow[{number}].reason: expected why that is harmless"
            raise errors.ConfigError(message)
        allowed[f"{each.kind}:{each.name}" if each.name else each.kind] = each.reason
    return allowed


def _read_root(path: str) -> tuple[_Root, str]:
    """Return what the file has, and what stands before its keys."""
    try:
        with Path(path).open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        message = f"cannot read {path}: {(error.strerror or str(error)).lower()}"
        raise errors.ConfigError(message) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path}: not valid TOML: {error}"
        raise errors.ConfigError(message) from error
    prefix = ""
    if Path(path).name == "pyproject.toml":
        tool = data.get("tool", {})
        data = tool.get("forkfirst", {}) if isinstance(tool, dict) else {}
        prefix = "tool.forkfirst."
    return _convert(data, _Root, path, prefix), prefix


def _convert(data: object, shape: type[_Shape], path: str, prefix: str) -> _Shape:
    try:
        return msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        # msgspec ends its text with " - at `$.key`": the place belongs before the complaint
        complaint, _, place = str(error).partition(" - at `$")
        key = (prefix + place.strip("`.")).rstrip(".")
        hint = ""
        if complaint.startswith("Object contains unknown field"):
            import difflib  # noqa: PLC0415 - only for a mistake

            known = [field.encode_name for field in msgspec.structs.fields(shape)]
            unknown = complaint.split()[-1]
            complaint = f"unknown key {unknown}; expected one of {', '.join(known)}"
            near = difflib.get_close_matches(unknown.strip("`"), known, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]}" if near else ""
        where = f"{path}: {key}" if key else path
        message = f"{where}: {complaint[0].lower()}{complaint[1:]}"
        raise errors.ConfigError(message, hint=hint) from error
