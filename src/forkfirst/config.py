"""Settings to declarations: a TOML file, and flags over it, checked once, here.

A key is a flag's name without its dashes in front, and means the same: `ready-timeout = "30s"` is
`--ready-timeout 30s`. Relative paths in a file start at the file's directory, those of flags at the
current one.
"""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.service import Declaration, check_name, check_service, name_from_target
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from forkfirst.plan.listener import Listener

FILE_NAMES = ("forkfirst.toml", "pyproject.toml")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Origin:
    """Where a setting was given, for its errors and its relative paths."""

    def __init__(self, text: str, directory: str, *, prefix: str = "") -> None:
        self.text = text
        self.directory = directory
        self.prefix = prefix

    def absolute(self, path: str) -> str:
        """Return *path* as an absolute one; a leading ``~`` is the home directory."""
        return os.path.normpath(os.path.join(self.directory, os.path.expanduser(path)))

    def error(self, key: str, message: str) -> errors.ConfigError:
        """Return the one line that says what is wrong with *key*."""
        return errors.ConfigError(f"{self.text}: {self.prefix}{key}: {message}")


def read_services(path: str) -> dict[str, dict[str, Any]]:
    """Return the tables of the services that the file at *path* declares, by name.

    Reads `[service.NAME]` of a forkfirst.toml, or `[tool.forkfirst.service.NAME]` of a
    pyproject.toml. The values have the right types; their meaning is not checked yet.

    Raises:
        ConfigError: It cannot be read, is not TOML, has an unknown key or a value of a wrong type.
    """
    from forkfirst import config_file  # noqa: PLC0415 - msgspec, only where there is a file

    return config_file.read(path)


def read_allowed(path: str) -> dict[str, str]:
    """Return the hazards that the file at *path* allows, `kind` or `kind:name`, with the reasons.

    Reads `[check]` of a forkfirst.toml, or `[tool.forkfirst.check]` of a pyproject.toml. Whether
    there is such a kind is not checked here.

    Raises:
        ConfigError: As `read_services`; or a reason is empty.
    """
    from forkfirst import config_file  # noqa: PLC0415 - as above

    return config_file.read_allowed(path)


def find_file(directory: str) -> str:
    """Return the configuration file that applies in *directory*, or "" if there is none."""
    for name in FILE_NAMES:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            if name == "pyproject.toml":
                with open(path, "rb") as file:
                    if b"[tool.forkfirst" not in file.read():
                        continue
            return path
    return ""


def make_declaration(name: str, layers: list[tuple[Mapping[str, Any], Origin]]) -> Declaration:
    """Return the service that *layers* of settings declare; a later layer overrides.

    Variables of `env` and `env-file` are added to those of earlier layers, not instead of them.

    Raises:
        ConfigError: A value does not mean what its key needs; the text names both.
    """
    fields: dict[str, Any] = {"source_directory": layers[-1][1].directory}
    environment: dict[str, str] = {}
    for settings, origin in layers:
        if settings.get("target") is not None and settings.get("command") is not None:
            key, message = "command", "expected either a target or a command, got both"
            raise origin.error(key, message)
        for key, value in settings.items():
            if value is None:
                continue
            _put(fields, environment, key, value, origin)
    fields["environment"] = tuple(environment.items())
    if not name:
        name = name_from_target(fields.get("target", ""), fields.get("command", ()))
        try:
            check_name(name)
        except errors.ConfigError as error:
            error.hint = "it is called after its program; --name gives it another name"
            raise
    service = Declaration(name=name, **fields)
    check_service(service)
    return service


def read_flags(flags: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """Return the fields of a declaration that *flags* set; those that are None set nothing.

    Raises:
        ConfigError: A value does not mean what its key needs.
    """
    fields: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            _put(fields, {}, key, value, origin)
    return fields


def _put(  # noqa: C901 - one flat table of keys reads better than ten functions
    fields: dict[str, Any], environment: dict[str, str], key: str, value: Any, origin: Origin
) -> None:
    if key in _CONVERTED:
        field, convert = _CONVERTED[key]
        fields[field] = convert(key, value, origin)
        return
    match key:
        case "target":
            fields["target"] = _target(value, origin)
            fields["source_directory"] = origin.directory
            fields.pop("command", None)
        case "command":
            fields["command"] = _command(value, origin)
            fields.pop("target", None)
        case "listen":
            fields["listeners"] = tuple(_listener(key, text, origin) for text in value)
        case "env":
            environment.update(value)
        case "serve-option":
            given = _serve_options(key, value, origin)
            fields["serve_options"] = (*fields.get("serve_options", ()), *given)
        case "env-file":
            environment.update(_read_env_file(key, origin.absolute(value), origin))
        case "user" | "group":
            fields[key] = str(value)  # a file may have a number
        case "supplementary":
            fields["supplementary"] = tuple(map(str, value))
        case _ if key in _AS_GIVEN:
            fields[key.replace("-", "_")] = value
        case _:
            raise AssertionError(key)


def _target(text: str, origin: Origin) -> str:
    place, colon, attribute = text.partition(":")
    if place.endswith(".py"):
        place = origin.absolute(place)
    return place + colon + attribute


def _command(words: list[str], origin: Origin) -> tuple[str, ...]:
    """Make the program's path absolute, if it is one: a daemon is in another directory."""
    program, *arguments = words or [""]
    if not program:
        key, message = "command", "expected a program and its arguments, got no program"
        raise origin.error(key, message)
    return (origin.absolute(program) if "/" in program else program, *arguments)


def _listener(key: str, text: str, origin: Origin) -> Listener:
    try:
        listener = parse_listener(text)
    except errors.AddressError as error:
        raise origin.error(key, str(error)) from error
    if listener.path:
        listener = replace(listener, path=origin.absolute(listener.path))
    return listener


def _serve_options(
    key: str, value: Mapping[str, Any] | list[str], origin: Origin
) -> Iterator[tuple[str, object]]:
    """Yield each option as its server spells it; of two with one name the server takes the last."""
    from forkfirst.plan.serving import FILES  # noqa: PLC0415 - only for an application

    pairs = (
        value.items() if hasattr(value, "items") else (text.partition("=")[::2] for text in value)
    )
    for name, given in pairs:
        if not name or given == "":
            message = f'expected NAME=VALUE, such as timeout-keep-alive=5, got "{name}"'
            raise origin.error(key, message)
        spelled = name.replace("-", "_")
        if isinstance(given, list):
            yield spelled, tuple(given)
        else:
            yield spelled, origin.absolute(given) if spelled in FILES else given


def _umask(key: str, value: int | str, origin: Origin) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(value, 8)
    except ValueError:
        message = f"expected an octal number such as 027, got {value!r}"
        raise origin.error(key, message) from None


def read_seconds(key: str, value: float | str, origin: Origin) -> float:
    """Return the seconds that *value* means.

    Raises:
        ConfigError: It means none.
    """
    if not isinstance(value, str):
        return float(value)
    number = value.rstrip("msh")
    try:
        return float(number) * _SECONDS[value[len(number) :] or "s"]
    except (ValueError, KeyError):
        message = f'expected seconds such as 30, or "500ms", "2m", "1h", got {value!r}'
        raise origin.error(key, message) from None


def _percent(key: str, value: float | str, origin: Origin) -> float:
    try:
        return float(value.removesuffix("%") if isinstance(value, str) else value)
    except ValueError:
        message = f'expected a percentage such as "10%", got {value!r}'
        raise origin.error(key, message) from None


def _size(key: str, value: int | str, origin: Origin) -> int:
    if isinstance(value, int):
        return value
    unit = value.removesuffix("B").removesuffix("i").lstrip("0123456789")
    try:
        return (
            int(value[: len(value.removesuffix("B").removesuffix("i")) - len(unit)]) * _BYTES[unit]
        )
    except (ValueError, KeyError):
        message = f'expected bytes such as 1048576, or "10MiB", got {value!r}'
        raise origin.error(key, message) from None


def _read_env_file(key: str, path: str, origin: Origin) -> dict[str, str]:
    """Read `NAME=VALUE` lines; `#` begins a comment line, quotes around a value are removed."""
    variables = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read {path}: {(getattr(error, 'strerror', None) or str(error)).lower()}"
        raise origin.error(key, message) from error
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ").lstrip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            message = f"{path}:{number}: expected NAME=VALUE, got {line!r}"
            raise origin.error(key, message)
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[name.strip()] = value
    return variables


def _tuple(_: str, value: list[str], __: Origin) -> tuple[str, ...]:
    return tuple(value)


def _preload(key: str, value: bool | str, origin: Origin) -> str:  # noqa: FBT001 - as a file has it
    if isinstance(value, bool):
        return "prefer" if value else ""
    if value == "require":
        return value
    message = f'expected true, false or "require", got {value!r}'
    raise origin.error(key, message)


def _path(_: str, value: str, origin: Origin) -> str:
    return origin.absolute(value)


_AS_GIVEN = (
    *("runtime", "serve", "version", "log-keep", "notify-fd", "no-new-privileges", "inetd"),
    *("workers", "restart-policy", "crash-limit", "max-requests"),
)
_CONVERTED: dict[str, tuple[str, Callable[[str, Any, Origin], Any]]] = {
    "chdir": ("directory", _path),
    "log": ("log", _path),
    "pid-file": ("pid_file", _path),
    "chroot": ("chroot", _path),
    "keep-capability": ("keep_capabilities", _tuple),
    "limit": ("limits", _tuple),
    "umask": ("umask", _umask),
    "preload": ("preload", _preload),
    "log-size": ("log_size", _size),
    "max-memory": ("max_memory", _size),
    "ready-timeout": ("ready_seconds", read_seconds),
    "grace-period": ("grace_seconds", read_seconds),
    "settle": ("settle_seconds", read_seconds),
    "hang-timeout": ("hang_seconds", read_seconds),
    "max-age": ("max_age_seconds", read_seconds),
    "commit-window": ("commit_seconds", read_seconds),
    "canary": ("canary_percent", _percent),
}
"""Key to field, and what makes the one's value into the other's."""
