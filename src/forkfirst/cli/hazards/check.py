"""`check`: whether a program could be forked after it was imported; for people and for CI."""

from __future__ import annotations

import os

from forkfirst import config, errors
from forkfirst.cli.hazards.checked import Checked
from forkfirst.guard import kinds
from forkfirst.guard.hazard import weigh
from forkfirst.stages.fresh import examination

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forkfirst.guard.hazard import Hazard

FOUND = 1
"""What `check` exits with where there are hazards."""

_FORMATS = ("text", "json", "sarif", "github")
_SECONDS = 60.0


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    add = parser.add_argument
    add(
        "target",
        nargs="*",
        metavar="TARGET",
        help="a target, or the name of a service in the configuration file; with none, every "
        "service in that file",
    )
    add(
        "--config", metavar="FILE", help="read this instead of ./forkfirst.toml or ./pyproject.toml"
    )
    add(
        "--format",
        metavar="FORMAT",
        choices=_FORMATS,
        default="text",
        help="text, json, sarif (for code scanning) or github (annotations of a workflow)",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=_SECONDS,
        help="how long an import may take (60)",
    )


def run(_: str, arguments: argparse.Namespace) -> int:
    """Check each program; return 1 if any has hazards, and the first failure's status before."""
    from forkfirst.cli.main import complain  # noqa: PLC0415 - it has loaded us

    directory = os.getcwd()
    path = arguments.config or config.find_file(directory)
    path = os.path.join(directory, path) if path else ""
    allowed = config.read_allowed(path) if path else {}
    kinds.check_allowed(allowed)
    checked: list[Checked] = []
    failure = 0
    for target, folder in _find_targets(arguments.target, path, directory):
        try:
            seen = examination.examine_apart(target, folder, seconds=arguments.timeout)
        except errors.ForkfirstError as error:
            complain(error)
            failure = failure or error.exit_status
            continue
        checked.append(Checked(target=target, verdict=weigh(seen.hazards, allowed)))
    show = _load_format(arguments.format)
    text = show(checked)
    if text:
        print(text)
    return failure or (0 if all(each.verdict.safe for each in checked) else FOUND)


def _find_targets(words: Sequence[str], path: str, directory: str) -> Iterator[tuple[str, str]]:
    """Yield each target with the directory where it is looked for."""
    services: Mapping[str, Mapping[str, str]] = config.read_services(path) if path else {}
    folder = os.path.dirname(path)
    if not words and not services:
        message = "nothing to check: give a target such as app.py:main, or a configuration file"
        raise errors.UsageError(message)
    for word in words or services:
        if ":" in word or word.endswith(".py"):
            yield word if ":" in word else f"{word}:main", directory
            continue
        if word not in services:
            message = f'no service "{word}" in {path or directory}'
            raise errors.UsageError(message, hint="a target has a colon, such as app.py:main")
        target = services[word].get("target")
        if target:
            yield target, folder
        elif words:
            message = f'service "{word}" runs a command: there is nothing to import'
            raise errors.UsageError(message)


def _load_format(name: str) -> Callable[[Sequence[Checked]], str]:
    if name == "text":
        return describe
    module = __import__("forkfirst.cli.hazards.formats", fromlist=["FORMATS"])
    return module.FORMATS[name]  # type: ignore[no-any-return]


def describe(checked: Sequence[Checked]) -> str:
    """Return what a person reads: the hazards of each program, what they would do, what to do."""
    return "\n".join(_describe_one(each) for each in checked)


def _describe_one(checked: Checked) -> str:
    from forkfirst.guard.hazard import describe_hazards  # noqa: PLC0415 - loaded already

    verdict = checked.verdict
    lines = [f"{checked.target}: clean"]
    if verdict.refusing:
        lines = [describe_hazards(verdict.refusing, service=checked.target)]
    lines += [f"  allowed: {_describe(hazard)} ({why})" for hazard, why in verdict.allowed]
    lines += [f"  notice: {_describe(hazard)}" for hazard in verdict.notices]
    return "\n".join(lines)


def _describe(hazard: Hazard) -> str:
    return f"{hazard.kind}: {hazard.describe()}"
