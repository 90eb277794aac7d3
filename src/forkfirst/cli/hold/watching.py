"""`--watch`: of `listen`, for any command, and of `run`, for a service of ours."""

from __future__ import annotations

import os
import sys

from forkfirst import config, errors
from forkfirst.cli import declare
from forkfirst.cli.hold.teller import Teller
from forkfirst.stages.hold import passing
from forkfirst.stages.hold.changes import Changes, load_watch
from forkfirst.stages.hold.generation import Recipe
from forkfirst.stages.hold.watch import Patience, Watch
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from forkfirst.plan.listener import Listener
    from forkfirst.plan.service import Declaration
    from forkfirst.stages.hold.passing import Held
    from forkfirst.stages.hold.watch import Say

_PATIENCE_SECONDS = 2.0
"""What a stop may take beyond the service's own grace period: tidying up."""


def watch_command(arguments: argparse.Namespace, held: Sequence[Held], say: Say) -> int:
    """Run the command of `listen` until a signal ends it; return its exit status.

    The sockets are closed at the end, and the paths that opening them made are removed.
    """
    try:
        patience = _read_patience(arguments)
        recipe = Recipe(
            argv=tuple(arguments.tail),
            held=tuple(held),
            with_pid=not arguments.no_pid,
        )
        return _watch(recipe, arguments.watch or ["."], patience, say)
    finally:
        passing.close_sockets(held)


def watch_service(arguments: argparse.Namespace) -> int:
    """Run a service of ours until a signal ends it; return its exit status.

    Each time it is `forkfirst run` with the same arguments: its listeners are passed to it by name,
    as a service manager passes them, so it has no pid file, and no place in `forkfirst ps`.

    Raises:
        ForkfirstError: It is declared wrongly, or a listener cannot be had.
    """
    paths, words = list(arguments.watch), _without_watch(sys.argv[2:])
    if paths and not arguments.target and not arguments.tail and not os.path.isdir(paths[-1]):
        # As in `run --watch app.py:main`: what follows the flag is what shall run.
        arguments.target = paths.pop()
        words.insert(0, arguments.target)
    services = declare.make_declarations(arguments)
    if len(services) != 1:
        message = f"a foreground runs one service, but the file declares {len(services)}"
        raise errors.UsageError(message, hint="name one of them")
    service = services[0]
    say = Teller()
    held = passing.open_sockets(map(_find_passed, service.listeners), blocking=False)
    try:
        for each in held:
            say(f"{service.name}: {each.name} listens on {each.address}")
        recipe = Recipe(
            argv=(sys.executable, "-m", "forkfirst", "run", *words),
            held=held,
        )
        patience = Patience(
            settle=None if sys.platform == "linux" else service.settle_seconds,
            ready=service.ready_seconds,
            grace=service.grace_seconds + _PATIENCE_SECONDS,
        )
        return _watch(recipe, paths or [_find_source(service)], patience, say)
    finally:
        passing.close_sockets(held)


def _without_watch(words: Sequence[str]) -> list[str]:
    """Return *words* without `--watch` and its paths."""
    kept: list[str] = []
    skipping = False
    for index, word in enumerate(words):
        if word == "--":
            return [*kept, *words[index:]]
        if word.startswith("-"):
            skipping = word == "--watch"
            if skipping or word.startswith("--watch="):
                continue
        if not skipping:
            kept.append(word)
    return kept


def _find_passed(listener: Listener) -> Listener:
    """Return *listener* under the name by which `run` will look for it."""
    if listener.number is not None:
        message = f"cannot watch with {listener}: the number is another one for each start"
        raise errors.UsageError(message, hint="pass it with a name, and write fd:NAME")
    return replace(listener, name=listener.reference) if listener.reference else listener


def _find_source(service: Declaration) -> str:
    place = service.target.partition(":")[0]
    if place.endswith(".py"):
        return os.path.dirname(os.path.join(service.source_directory, place))
    return service.source_directory if place else "."


def _watch(recipe: Recipe, paths: Sequence[str], patience: Patience, say: Say) -> int:
    load_watch()
    changes = Changes(paths)
    say(f"watching {', '.join(paths)}")
    return Watch(recipe, changes, patience, say, os.path.realpath(os.getcwd())).run()


def _read_patience(arguments: argparse.Namespace) -> Patience:
    flags = {
        "command": arguments.tail,
        "settle": arguments.settle,
        "ready-timeout": arguments.ready_timeout,
        "grace-period": arguments.grace_period,
    }
    origin = config.Origin("command line", os.getcwd(), prefix="--")
    said = config.make_declaration("listen", [(flags, origin)])
    return Patience(settle=said.settle_seconds, ready=said.ready_seconds, grace=said.grace_seconds)
