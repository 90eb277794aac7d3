"""The findings of `check` for machines: JSON, SARIF for code scanning, GitHub's annotations."""

from __future__ import annotations

import os

from forkfirst import __version__
from forkfirst.guard.kinds import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from forkfirst.cli.hazards.checked import Checked
    from forkfirst.guard.hazard import Hazard

_LEVELS = {"fatal": "error", "danger": "error", "notice": "note"}
_WORKFLOW = {"fatal": "error", "danger": "error", "notice": "notice"}


def to_json(checked: Sequence[Checked]) -> str:
    """Return one object: each program, with its hazards and what was allowed."""
    return _dump(
        {
            "forkfirst": __version__,
            "safe": all(each.verdict.safe for each in checked),
            "programs": [
                {
                    "target": each.target,
                    "safe": each.verdict.safe,
                    "hazards": [
                        {**_as_object(hazard), "allowed": reason}
                        for hazard, reason in _list_hazards(each)
                    ],
                }
                for each in checked
            ],
        }
    )


def to_sarif(checked: Sequence[Checked]) -> str:
    """Return a log of SARIF 2.1.0.

    Source: the OASIS standard "Static Analysis Results Interchange Format (SARIF) Version 2.1.0".
    """
    rules = [
        {
            "id": kind.name,
            "shortDescription": {"text": kind.title},
            "fullDescription": {"text": kind.happens},
            "help": {"text": kind.remedy or kind.happens},
            "defaultConfiguration": {"level": _LEVELS[kind.certainty]},
        }
        for kind in KINDS
    ]
    results = [
        _make_result(each.target, hazard, reason)
        for each in checked
        for hazard, reason in _list_hazards(each)
    ]
    driver = {"name": "forkfirst", "semanticVersion": __version__, "rules": rules}
    return _dump(
        {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{"tool": {"driver": driver}, "results": results}],
        }
    )


def to_github(checked: Sequence[Checked]) -> str:
    """Return one workflow command a line, which GitHub shows at the line of the program.

    Source: "Workflow commands for GitHub Actions".
    """
    return "\n".join(
        _make_command(each.target, hazard, reason)
        for each in checked
        for hazard, reason in _list_hazards(each)
    )


FORMATS: Mapping[str, Callable[[Sequence[Checked]], str]] = {
    "json": to_json,
    "sarif": to_sarif,
    "github": to_github,
}


def _list_hazards(checked: Checked) -> Iterator[tuple[Hazard, str | None]]:
    """Yield each hazard with the reason for which it is allowed, or None."""
    allowed = dict(checked.verdict.allowed)
    for hazard in checked.verdict.hazards:
        yield hazard, allowed.get(hazard)


def _as_object(hazard: Hazard) -> dict[str, Any]:
    origin = hazard.origin
    found = {
        name: getattr(hazard, name)
        for name in ("kind", "certainty", "subject", "detail", "name", "consequence", "remedy")
    }
    found["origin"] = None
    if origin is not None:
        found["origin"] = {name: getattr(origin, name) for name in type(origin).__fields__}
    return found


def _say(target: str, hazard: Hazard) -> str:
    parts = [f"{target}: {hazard.describe()}", hazard.consequence]
    if hazard.remedy:
        parts.append(f"do: {hazard.remedy}")
    return "\n".join(part for part in parts if part)


def _make_result(target: str, hazard: Hazard, reason: str | None) -> dict[str, Any]:
    file, line = _find_place(target, hazard)
    result: dict[str, Any] = {
        "ruleId": hazard.kind,
        "level": _LEVELS[hazard.certainty],
        "message": {"text": _say(target, hazard)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": file.replace(os.sep, "/")},
                    "region": {"startLine": line},
                }
            }
        ],
    }
    if reason is not None:
        result["suppressions"] = [{"kind": "external", "justification": reason}]
    return result


def _make_command(target: str, hazard: Hazard, reason: str | None) -> str:
    file, line = _find_place(target, hazard)
    command = "notice" if reason is not None else _WORKFLOW[hazard.certainty]
    text = _say(target, hazard) + (f"\nallowed: {reason}" if reason is not None else "")
    title = _escape(f"fork hazard: {hazard.kind}", ",:")
    return f"::{command} file={_escape(file, ',:')},line={line},title={title}::{_escape(text)}"


def _find_place(target: str, hazard: Hazard) -> tuple[str, int]:
    """Return the file and the line to show; the program's own first line if none was seen."""
    if hazard.origin is None:
        place = target.rpartition(":")[0]
        if not place.endswith(".py"):
            place = place.replace(".", "/") + ".py"
        return place, 1
    relative = os.path.relpath(hazard.origin.file)
    file = hazard.origin.file if relative.startswith("..") else relative
    return file, max(1, hazard.origin.line)


def _escape(text: str, also: str = "") -> str:
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _dump(data: object) -> str:
    import json  # noqa: PLC0415 - only for these two

    return json.dumps(data, indent=2)
