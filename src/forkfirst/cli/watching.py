"""`--watch`: of `listen`, for any command, and of `run`, for a service of ours."""

from __future__ import annotations

import os

from forkfirst import config
from forkfirst.stages.hold import passing
from forkfirst.stages.hold.changes import Changes, load_watch
from forkfirst.stages.hold.generation import Recipe
from forkfirst.stages.hold.watch import Patience, Watch
from forkfirst.unix import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from forkfirst.stages.hold.passing import Held
    from forkfirst.stages.hold.watch import Say


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
            still_ignored=tuple(spawn.list_inherited_ignored()),
        )
        return _watch(recipe, arguments.watch or ["."], patience, say)
    finally:
        passing.close_sockets(held)


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
