"""`start`, `run`, `stop`, `restart`: the commands that change whether a service runs."""

from __future__ import annotations

import os
import sys
import time

from forkfirst import errors
from forkfirst.cli import declare, known
from forkfirst.plan import order
from forkfirst.plan.first import is_supervised
from forkfirst.stages import launch, probe, running
from forkfirst.stages.start import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from forkfirst.cli.known import KnownService
    from forkfirst.plan.service import Declaration
    from forkfirst.stages.fork_first import Forked
    from forkfirst.stages.running import Ended, Running

_PATIENCE_SECONDS = 2.0
"""What `stop` adds to a service's grace period: it ends by itself in that, and is not killed."""


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
    if command in ("stop", "restart"):
        parser.add_argument("name", help="the service")
        parser.add_argument(
            "--grace-period",
            metavar="SECONDS",
            type=float,
            help="kill it if it has not stopped after so long (default: 2 s over its own)",
        )


def run(command: str, arguments: argparse.Namespace) -> int:
    """Do *command*; return its exit status."""
    if command == "stop":
        return stop(known.find(arguments.name), arguments.grace_period)
    if command == "restart":
        return restart(known.find(arguments.name), arguments.grace_period)
    if command == "run" and arguments.watch is not None:
        from forkfirst.cli.hold import watching  # noqa: PLC0415 - only for this

        return watching.watch_service(arguments)
    services = declare.make_declarations(arguments)
    foreground = command == "run" or arguments.foreground
    spawn = command == "start" and arguments.spawn
    if foreground and len(services) > 1:
        message = f"a foreground runs one service, but the file declares {len(services)}"
        raise errors.UsageError(message, hint="name one of them")
    if command == "start" and arguments.restart:
        for service in services:
            stop_if_running(service)
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
    from forkfirst.cli.main import complain  # noqa: PLC0415 - it has loaded us

    status = 0
    for service in services:
        again = (*_command_line(), service.name)  # or a restart would start all of them
        try:
            start(service, again, foreground=False, forked=forked, spawn=spawn)
        except errors.ForkfirstError as error:
            complain(error)
            status = status or error.exit_status
        sys.stdout.flush()
        # It has become this one, or is gone with it.
        forked = None
    return status


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
        launch.launch(under_way)
        print(_describe_success(under_way))
        under_way.let_go()
    elif plan.mode == order.FIRST_PROCESS:
        from forkfirst.stages import first_process  # noqa: PLC0415 - in a container only

        first_process.run(under_way)
    else:
        launch.run_here(under_way)


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


# -- stop and restart ------------------------------------------------------------------------------


def stop(service: KnownService, grace: float | None) -> int:
    """Stop *service*, wait until it is gone, and say how it ended. Signals nothing else."""
    found = running.take(service.pid_file, service.owner)
    if found is None:
        if service.managed:
            message = f'cannot stop "{service.name}": its manager runs it, and would start it again'
            raise errors.UsageError(message, hint=f"systemctl stop {service.name}")
        message = f'"{service.name}" is not running'
        raise errors.NotRunningError(message)
    print(_describe_end(service, end(service, found, grace)))
    return 0


def end(service: KnownService, found: Running, grace: float | None) -> Ended:
    """End the process that runs *service*; kill it after *grace* seconds, its own plus 2 if None.

    In the foreground the session is the person's, with their shell in it: only that of a daemon is
    ended as well.
    """
    ended = found.end(
        service.name,
        seconds=service.grace_seconds() + _PATIENCE_SECONDS if grace is None else grace,
        session=service.session,
    )
    if service.owner:
        running.remove_leftovers(service.pid_file, service.control_socket, service.owner)
    return ended


def _describe_end(service: KnownService, ended: Ended) -> str:
    text = f"{service.name}: stopped (pid {ended.pid}"
    if ended.gone_before:
        text += ", which had just ended"
    if ended.killed:
        text += f", killed: it had not stopped after {ended.seconds:g} s"
    if ended.left_behind:
        plural = "es" if ended.left_behind > 1 else ""
        text += f", and {ended.left_behind} process{plural} that it left behind"
    return f"{text})"


def stop_if_running(declared: Declaration) -> None:
    """Stop the service of this declaration, if it runs."""
    service = known.of_declaration(declared)
    found = running.take(service.pid_file, service.owner)
    if found is not None:
        end(service, found, None)


def restart(service: KnownService, grace: float | None) -> int:
    """Stop *service*, then give the very command that started it, where it was given."""
    if service.mode not in ("", order.DAEMON):
        message = f'cannot restart "{service.name}": it runs in the foreground'
        raise errors.UsageError(message, hint="whoever supervises it must start it again")
    if not service.command:
        message = f'cannot restart "{service.name}": nothing is known of how it was started'
        raise errors.NotRunningError(message, hint="start it with its target")
    os.chdir(service.directory)  # first: what cannot be started again is not stopped
    found = running.take(service.pid_file, service.owner)
    if found is not None:
        end(service, found, grace)
    sys.stdout.flush()
    os.execv(service.command[0], service.command)  # noqa: S606 - our own interpreter, no shell
    raise AssertionError
