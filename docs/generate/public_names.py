"""The page of every public name, from its signature and its docstring."""

from __future__ import annotations

import inspect
import re

import forkfirst
from forkfirst.values import Value

_NOTE = "<!-- Made by docs/generate from the code. Change the code, then run `make docs`. -->\n"

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Source):\s*(.*)$")
_ENTRY = re.compile(r"^    (\*{0,2}\w[\w., ]*):\s+(.*)$")

_STARS: dict[object, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def write_public_names() -> str:
    """Return the page; refuse a public name that says nothing about itself.

    Raises:
        ValueError: A public name has no docstring.
    """
    parts = [
        _NOTE,
        "# In Python\n",
        f"{inspect.cleandoc(forkfirst.__doc__ or '')}\n",
    ]
    for name in forkfirst.__all__:
        if name.startswith("__"):
            continue
        value = getattr(forkfirst, name)
        parts.append(f"## {name}\n")
        parts += _describe_class(name, value) if isinstance(value, type) else _describe(name, value)
    return "\n".join(parts).rstrip() + "\n"


def _describe_class(name: str, kind: type) -> list[str]:
    parts = [f"```python\nclass {name}{_sign_class(kind)}\n```\n", _read_docstring(name, kind)]
    for key, value in vars(kind).items():
        if key.startswith("_"):
            continue
        if isinstance(value, property) and value.fget is not None:
            shown = f"{key}: {_annotation(value.fget.__annotations__.get('return'))}"
            parts += [f"### {name}.{key}\n", f"```python\n{shown}\n```\n"]
            parts.append(_read_docstring(f"{name}.{key}", value))
        elif inspect.isfunction(value) or isinstance(value, classmethod | staticmethod):
            called = value if inspect.isfunction(value) else value.__func__
            parts.append(f"### {name}.{key}\n")
            parts += _describe(key, called, whole_name=f"{name}.{key}")
    return parts


def _describe(name: str, called: object, *, whole_name: str = "") -> list[str]:
    keyword = "async def" if inspect.iscoroutinefunction(called) else "def"
    shown = f"```python\n{keyword} {name}{_sign(called)}\n```\n"
    return [shown, _read_docstring(whole_name or name, called)]


def _sign_class(kind: type) -> str:
    if issubclass(kind, Value):
        notes = {key: text for base in reversed(kind.__mro__) for key, text in _notes(base)}
        return _join(
            ["*"]
            + [
                f"{field}: {_annotation(notes.get(field))}"
                + (f" = {kind.__defaults__[field]!r}" if field in kind.__defaults__ else "")
                for field in kind.__fields__
            ]
        )
    if issubclass(kind, BaseException):
        return "(Exception)"
    init = vars(kind).get("__init__")
    return "" if init is None else _sign(init)


def _notes(kind: type) -> list[tuple[str, str]]:
    return list(vars(kind).get("__annotations__", {}).items())


def _sign(called: object) -> str:
    signature = inspect.signature(called)  # type: ignore[arg-type]
    words: list[str] = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        stars = _STARS.get(parameter.kind, "")
        star = star or stars == "*"
        default = "" if parameter.default is parameter.empty else _default(parameter.default)
        words.append(f"{stars}{parameter.name}: {_annotation(parameter.annotation)}{default}")
    returned = _annotation(signature.return_annotation)
    return _join(words) + (f" -> {returned}" if returned != "Any" else "")


def _default(value: object) -> str:
    return " = …" if callable(value) else f" = {value!r}"


def _join(words: list[str]) -> str:
    line = f"({', '.join(words)})"
    if len(line) <= 80:  # noqa: PLR2004 - a line of a page
        return line
    return "(\n" + "".join(f"    {word},\n" for word in words) + ")"


def _annotation(note: object) -> str:
    if note is None or note is inspect.Parameter.empty:
        return "Any"
    return note if isinstance(note, str) else getattr(note, "__name__", repr(note))


def _read_docstring(name: str, value: object) -> str:
    text = inspect.cleandoc(getattr(value, "__doc__", None) or "")
    if not text:
        message = f"forkfirst.{name} is public and has no docstring"
        raise ValueError(message)
    return _to_markdown(text) + "\n"


def _to_markdown(text: str) -> str:
    """Turn Google's sections into headings and lists; everything else is Markdown already."""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        heading = _SECTION.match(line)
        if heading:
            section = heading[1]
            lines += [f"**{section}**" + (f": {heading[2]}" if heading[2] else ""), ""]
            continue
        entry = _ENTRY.match(line) if section else None
        if entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            section = "" if line and not line.startswith(" ") else section
            lines.append(line)
    return "\n".join(lines)
