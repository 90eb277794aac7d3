"""`start` and `run`: the commands that make a service run."""

from __future__ import annotations

import os
import sys
import time

from forkfirst import errors
from forkfirst.cli import declare
from forkfirst.plan import order
from forkfirst.plan.first import is_supervised
from forkfirst.stages import probe
from forkfirst.stages.start import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from forkfirst.plan.service import Declaration
    from forkfirst.stages.fork_first import Forked


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of *command*."""
    if command in ("start", "run"):
        declare.add_service_arguments(parser)
    if command == "start":
        parser.add_argument(
            "-f", "--foreground", action="store_true", help="do not detach; the same as run"
        )
        parser.add_argument(
            "-r", "--restart", action="store_true", help="stop it first, if it runs"
        )
        parser.add_argument(
            "--spawn", action="store_true", help="fork nothing: execute fresh interpreters instead"
        )
    if command == "run":
        parser.add_argument(
            "--watch",
            nargs="*",
            action="extend",
            metavar="PATH",
            help="start it anew when a file below PATH (or beside the program) changes, and hold "
            "its listeners meanwhile; repeatable",
        )


def run(command: str, arguments: argparse.Namespace) -> int:
    """Do *command*; return its exit status."""
    if command == "run" and arguments.watch is not None:
        from forkfirst.cli.hold import watching  # noqa: PLC0415 - only for this

        return watching.watch_service(arguments)
    services = declare.make_declarations(arguments)
    foreground = command == "run" or arguments.foreground
    spawn = command == "start" and arguments.spawn
    if foreground and len(services) > 1:
        message = f"the foreground is for one service, and the file declares {len(services)}"
        names = ", ".join(service.name for service in services)
        raise errors.UsageError(message, hint=f"name one of them: {names}")
    if command == "start" and arguments.restart:
        from forkfirst.cli import stop  # noqa: PLC0415 - only with --restart

        for service in services:
            stop.stop_if_running(service)
    if len(services) == 1:
        start(
            services[0],
            _command_line(),
            foreground=foreground,
            forked=arguments.forked,
            spawn=spawn,
        )
        return 0
    return _start_each(services, arguments.forked, spawn=spawn)


def _start_each(services: list[Declaration], forked: Forked | None, *, spawn: bool) -> int:
    """Start every one of *services*, whatever becomes of the others; the first failure counts."""
    from forkfirst.cli import main  # noqa: PLC0415 - it has loaded us

    made = [] if forked is None else [forked]

    def act(service: Declaration) -> int:
        again = (*_command_line(), service.name)  # or a restart would start all of them
        # It becomes the first one, or is gone with it.
        waiting = made.pop() if made else None
        start(service, again, foreground=False, forked=waiting, spawn=spawn)
        sys.stdout.flush()
        return 0

    return main.do_each(services, act)


# -- start -----------------------------------------------------------------------------------------


def start(  # noqa: PLR0913 - each is a fact of this one start
    service: Declaration,
    command: tuple[str, ...],
    *,
    foreground: bool,
    program: Callable[..., object] | None = None,
    forked: Forked | None = None,
    spawn: bool = False,
) -> None:
    """Start *service* and say so; in the foreground, exit with its status.

    Args:
        service: What was declared.
        foreground: Whether to stay in this process.
        command: The command line that would start it again.
        program: The function itself, where the service was declared in the person's own program.
        forked: The process that waits to be the service, if it was made already.
        spawn: Whether a daemon is made of fresh interpreters, and not by forks.

    Raises:
        ForkfirstError: It does not run, and nothing is left of it.
    """
    if not foreground and (service.inetd or is_supervised(os.environ, os.getpid())):
        foreground = True
        print(f"{service.name}: supervised, so not detaching", file=sys.stderr)
    host = probe.read_host(detaching=not foreground and os.getpid() != 1, service=service)
    plan = order.make_plan(service, host, foreground=foreground, spawn=spawn)
    if not foreground and plan.mode != order.DAEMON:
        print(
            f"{service.name}: this is process 1, so there is nothing to detach from: "
            "running in the foreground",
            file=sys.stderr,
        )
    if plan.mode != order.DAEMON and forked is not None:
        forked.end_unused()  # the arguments were not clear enough to see that early: `-rf`
        forked = None
    under_way = Start(
        plan, command=command, directory=host.directory, program=program, forked=forked
    )
    if plan.mode == order.DAEMON:
        from forkfirst.stages import launch  # noqa: PLC0415 - the foreground needs none of it

        launch.launch(under_way)
        print(_describe_success(under_way))
        under_way.let_go()
    elif plan.mode == order.FIRST_PROCESS:
        from forkfirst.stages import first_process  # noqa: PLC0415 - in a container only

        first_process.run(under_way)
    else:
        from forkfirst.stages import here  # noqa: PLC0415 - and a daemon none of this

        here.run(under_way)


def _describe_success(done: Start) -> str:
    plan = done.plan
    milliseconds = (time.monotonic() - done.began) * 1000
    took = f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f} s"  # noqa: PLR2004 - ten seconds
    parts = [
        f"{plan.service.name}: running in the background",
        f"pid {done.pid}",
        f"ready after {took}",
        f"log {_short(plan.places.log)}",
    ]
    if done.status:
        parts.append(done.status)
    return ", ".join(parts)


def _short(path: str) -> str:
    home = os.environ.get("HOME", "")
    return f"~{path[len(home) :]}" if len(home) > 1 and path.startswith(f"{home}/") else path


def _command_line() -> tuple[str, ...]:
    """Return what starts the same service again: always `start`, never `restart` or `-r`."""
    arguments = [word for word in sys.argv[2:] if word not in ("-r", "--restart")]
    if "--" in sys.argv:
        index = sys.argv.index("--")
        arguments = [
            *(word for word in sys.argv[2:index] if word not in ("-r", "--restart")),
            *sys.argv[index:],
        ]
    return (sys.executable, "-m", "forkfirst", "start", *arguments)
