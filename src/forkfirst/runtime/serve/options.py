"""From what a person wrote after --serve-option to what a server's own constructor wants."""

from __future__ import annotations

import difflib
import enum
import re
import typing
from pathlib import Path

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_NAMES_FILE = re.compile(r"(certfile|keyfile|ca_certs|ssl_cert|ssl_key|ssl_ca|env_file)$")
_TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read(
    server: str, given: Mapping[str, object], known: Mapping[str, object], owned: Mapping[str, str]
) -> dict[str, Any]:
    """Return *given* with the types that *known*, name to annotation, has for each.

    Args:
        server: Whose they are, for the errors.
        given: Names and values; a value is a text, or has a type already if it is from a file.
        known: What that server has.
        owned: What forkfirst decides instead, and by which flag.

    Raises:
        ConfigError: There is no such option, or its value has another type.
    """
    for name in given:
        shown = name.replace("_", "-")
        if name in owned:
            message = f"serve-option {shown}: that is not {server}'s to decide here"
            raise errors.ConfigError(message, hint=owned[name])
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
            near = [one.replace("_", "-") for one in near]
            hint = f"did you mean {' or '.join(near)}" if near else f"see the manual of {server}"
            message = f"serve-option {shown}: {server} has no such option"
            raise errors.ConfigError(message, hint=hint)
    for name, value in given.items():
        if _NAMES_FILE.search(name):
            _check_readable(name, value)
    return {name: _convert(server, name, value, known[name]) for name, value in given.items()}


def refuse(error: Exception, server: str) -> errors.ConfigError:
    """Return what to say of *error*, by which *server* refused its options."""
    reason = str(error) or type(error).__name__
    return errors.ConfigError(f"{server} refuses its options: {reason}")


def _check_readable(name: str, value: object) -> None:
    """Refuse a file that cannot be read: what servers raise of it does not name it."""
    try:
        with open(str(value), "rb"):
            return
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        message = f"serve-option {name.replace('_', '-')}: cannot read {value}: {why}"
        raise errors.ConfigError(message) from error


def _convert(server: str, name: str, value: object, annotation: object) -> Any:
    text = annotation if isinstance(annotation, str) else _describe(annotation)
    words = set(re.findall(r"\w+", text))
    choices = _find_enum(annotation)
    if choices is not None and isinstance(value, str | int):
        return _choose(server, name, value, choices)
    if isinstance(value, str):
        converted = _convert_text(value, words)
    elif isinstance(value, tuple):
        converted = [_as_path(one, words) for one in value] if words & _MANY else None
    else:
        converted = value if _fits(value, words) else None
    if converted is None and value != "none":
        message = f"serve-option {name.replace('_', '-')}: expected {text}, got {value!r}"
        raise errors.ConfigError(message, hint=f"it is an option of {server}")
    return converted


_MANY = {"list", "Sequence", "tuple"}


def _convert_text(value: str, words: set[str]) -> object:
    """Return the first thing that *value* can be, of those that *words* name; None if nothing."""
    if value == "none" and "None" in words:
        return None
    if "bool" in words and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    for word, kind in (("int", int), ("float", float)):
        if word in words:
            try:
                return kind(value)
            except ValueError:
                continue
    if "tuple" in words:
        return [tuple(value.partition(":")[::2])]  # a header
    if words & {"list", "Sequence"}:
        return [_as_path(one, words) for one in value.split(",")]
    only_numbers = words & {"bool", "int", "float"} and not words & {"str", "Any", "Literal"}
    return None if only_numbers else _as_path(value, words)


def _as_path(value: Any, words: set[str]) -> Any:
    return Path(value) if "Path" in words and "str" not in words else value


def _fits(value: object, words: set[str]) -> bool:
    if isinstance(value, bool):
        return "bool" in words
    return type(value).__name__ in words or (isinstance(value, int) and "float" in words)


def _find_enum(annotation: object) -> type[enum.Enum] | None:
    for one in (annotation, *typing.get_args(annotation)):
        if isinstance(one, type) and issubclass(one, enum.Enum):
            return one
    return None


def _choose(server: str, name: str, value: object, choices: type[enum.Enum]) -> enum.Enum:
    for one in choices:
        if str(value) in {str(one.value), one.name}:
            return one
    listed = ", ".join(str(one.value) for one in choices)
    message = f"serve-option {name.replace('_', '-')}: {value!r} is not one of {listed}"
    raise errors.ConfigError(message, hint=f"it is an option of {server}")


def _describe(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
