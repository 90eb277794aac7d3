"""Pages made from tables in the code: the commands, the exit statuses, the steps."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from forkfirst import errors
from forkfirst.cli import main as command_line
from forkfirst.plan import (
    adoption,
    confinement,
    listener,
    managing,
    order,
    preparation,
    service,
    spawning,
    steps,
)
from forkfirst.plan import host as hosts
from forkfirst.plan.fleet import preloading

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from forkfirst.plan.plan import Plan

_NOTE = "<!-- Made by docs/generate from the code. Change the code, then run `make docs`. -->\n"

_BY_SIGNAL = "ended by signal n, as a shell reports it"

_DAEMON_7 = {
    1: "close all open file descriptors except 0, 1, 2",
    2: "reset all signal handlers",
    3: "reset the signal mask",
    4: "clean the environment",
    5: "fork",
    6: "setsid",
    7: "fork again, so that no terminal can ever be gained",
    8: "the first child exits: only the second child stays, and init adopts it",
    9: "/dev/null on 0, 1 and 2",
    10: "umask",
    11: "change directory to /",
    12: "write the pid file, so that the service cannot be started twice",
    13: "drop privileges",
    14: "tell the original process that initialisation is complete",
    15: "the original process exits",
}

_ALWAYS = (steps, preparation)
"""Modules of steps that every start has."""

_SELDOM = (confinement, adoption, managing, preloading, spawning)
"""Modules of steps that few services have."""

_ELSEWHERE = {
    13: "with `--user`: "
    + ", ".join(
        kind.__name__
        for kind in vars(confinement).values()
        if isinstance(kind, type) and getattr(kind, "sysv", 0) == 13  # noqa: PLR2004 - of the list
    ),
    8: "not before the service is ready: until then the session leader watches; then it is ended",
}


_GROUPS = {
    "In the launcher, until it forks": "first",
    "In the session leader": "leader",
    "In the service, while it waits for its plan": "early",
    "In the launcher, meanwhile": "launcher",
    "In the service": "worker",
    "In the launcher again": "last",
}
"""The fields of a plan, each with its heading, in the order of its steps."""


def write_commands() -> str:
    """Return the page of the commands and their options."""
    parts = [
        _NOTE,
        "# The commands\n",
        "`forkfirst COMMAND [OPTION…]`, or `python -m forkfirst COMMAND [OPTION…]`. Every command",
        "says what it did in one line and exits with a [documented status](exit-statuses.md).\n",
    ]
    for command in command_line.COMMANDS:
        parser, _ = command_line.make_parser(command)
        parts.append(f"## {command}\n")
        parts.append(f"{parser.description}\n")
        parts.append(f"```text\n{_describe_usage(parser)}\n```\n")
        options = list(_list_arguments(parser))
        if options:
            parts += ["| argument | meaning |", "| --- | --- |", *options, ""]
    return "\n".join(parts)


_NUMBERS = {"?": "[{}]", "*": "[{}…]", "+": "{}…"}
"""How often argparse takes an argument, and how that is written."""


def _describe_usage(parser: argparse.ArgumentParser) -> str:
    if parser.usage:
        return parser.usage % {"prog": parser.prog}
    actions = parser._actions  # noqa: SLF001 - argparse has no other list of them
    options = [
        f"[{_name(action)}]"
        for action in actions
        if action.option_strings and "-h" not in action.option_strings
    ]
    names = [
        _NUMBERS.get(str(action.nargs), "{}").format(_name(action))
        for action in actions
        if not action.option_strings
    ]
    return " ".join([parser.prog, *options, *names])


def _list_arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if "-h" in action.option_strings:
            continue
        meaning = (action.help or "").replace("|", "\\|")
        if not meaning:
            message = f"{parser.prog}: {action.dest} has no help"
            raise ValueError(message)
        yield f"| `{_name(action)}` | {meaning} |"


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest.upper())
    spelled = ", ".join(action.option_strings)
    if action.nargs == 0:
        return spelled
    value = str(action.metavar or action.dest.upper())
    return f"{spelled} {_NUMBERS.get(str(action.nargs), '{}').format(value)}"


def write_exit_statuses() -> str:
    """Return the page of the exit statuses."""
    rows = [
        (0, "done; for `status`: the service runs"),
        (128, _BY_SIGNAL),
        (130, "interrupted by Ctrl-C (128 + SIGINT)"),
        (141, "nobody read the output any more (128 + SIGPIPE)"),
    ]
    rows += [(kind.exit_status, kind.meaning) for kind in _list_errors()]
    lines = []
    for status, meaning in sorted(set(rows)):
        shown = "128 + n" if meaning == _BY_SIGNAL else str(status)
        lines.append(f"| {shown} | {meaning} |")
    heads = [
        _NOTE,
        "# Exit statuses\n",
        "A part of the interface: a script may rely on each. They are those of sysexits(3) where",
        "one fits, 128 + n for a death by signal, 124 for a time limit as timeout(1) has it.\n",
        "A program that ends by itself before it is ready gives `start` its own status, and 70 if",
        "that was 0. In the foreground, `run` exits with the program's own status.\n",
        "| status | meaning |",
        "| --- | --- |",
    ]
    of_status = [
        "\n## Of `status`\n",
        "As the Linux Standard Base has it for init scripts.\n",
        "| status | meaning |",
        "| --- | --- |",
        "| 0 | the service runs |",
        "| 1 | it is dead, but its pid file is still there |",
        "| 3 | it does not run |",
        "| 4 | it cannot be known |",
    ]
    return "\n".join([*heads, *lines, *of_status]) + "\n"


def _list_errors() -> Iterator[type[errors.ForkfirstError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.ForkfirstError):
            yield value


def write_steps() -> str:
    """Return the page of the steps, in the order in which a daemon's start takes them."""
    example = _make_example()
    parts = [
        _NOTE,
        "# The steps of a start\n",
        "`forkfirst plan TARGET` prints them for your own service, and does nothing. The order",
        "stands in one place in the code, `plan/order.py`; this page is made from it.\n",
        "What `forkfirst start hello.py:main --listen web=127.0.0.1:8000` does, for a user other",
        "than root:\n",
    ]
    number = 0
    for title, field in _GROUPS.items():
        chosen = getattr(example, field)
        if not chosen:
            continue
        parts += [f"## {title}\n", "| | step | what it does | see |", "| --- | --- | --- | --- |"]
        for step in chosen:
            number += 1
            name = type(step).__name__
            parts.append(f"| {number} | {name} | {step.describe()} | {step.manual} |")
        parts.append("")
    parts += _compare_with_daemon_7(example)
    parts += _compare_spawning()
    parts += _explain_each_kind()
    return "\n".join(parts)


def _compare_with_daemon_7(example: Plan) -> list[str]:
    taken: dict[int, list[str]] = {}
    for number, step in enumerate(example.steps, 1):
        taken.setdefault(step.sysv, []).append(str(number))
    parts = [
        "## Beside daemon(7)\n",
        "The fifteen steps that daemon(7) asks of a SysV daemon, and which of ours take them.\n",
        "| daemon(7) | asks | ours |",
        "| --- | --- | --- |",
    ]
    for number, asked in _DAEMON_7.items():
        ours = ", ".join(taken.get(number, [])) or _ELSEWHERE.get(number, "not in this version")
        parts.append(f"| {number} | {asked} | {ours} |")
    return [*parts, ""]


def _compare_spawning() -> list[str]:
    """Say what is different where nothing is forked."""
    first, leader = (
        spawning.plan_first("hello", "asyncio"),
        spawning.plan_leader("hello", "asyncio"),
    )
    parts = [
        "## With `--spawn`\n",
        "Nothing is forked: the session leader and the service are fresh interpreters. Instead of",
        "the steps above, until the service waits for its plan:\n",
        "| in | step | what it does | see |",
        "| --- | --- | --- | --- |",
    ]
    for process, chosen in (("launcher", first), ("session leader", leader)):
        for step in chosen:
            name = type(step).__name__
            parts.append(f"| {process} | {name} | {step.describe()} | {step.manual} |")
    return [*parts, ""]


def _explain_each_kind() -> list[str]:
    parts = ["## Every kind of step\n"]
    known = {module.__name__ for module in (*_ALWAYS, *_SELDOM)}
    kinds = [kind for kind in steps.Step.__subclasses__() if kind.__module__ in known]
    for kind in sorted(kinds, key=_place):
        parts += [f"### {kind.__name__}\n", f"{inspect.cleandoc(kind.__doc__ or '')}\n"]
    return parts


def _place(kind: type[steps.Step]) -> tuple[int, str, int]:
    """Return where a kind is defined: those of every start come first."""
    always = [module.__name__ for module in _ALWAYS]
    place = kind.__module__
    rank = always.index(place) if place in always else len(always)
    return rank, place, inspect.getsourcelines(kind)[1]


def _make_example() -> Plan:
    declared = service.Declaration(
        name="hello",
        target="hello.py:main",
        listeners=(listener.parse_listener("web=127.0.0.1:8000"),),
    )
    return order.make_plan(declared, hosts.Host(uid=1000, pid=4711, home="~", directory="~"))
