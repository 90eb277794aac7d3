"""`stop`, `restart` and `forget`: the commands that end a service, and its place in the list."""

from __future__ import annotations

import os
import sys

from forkfirst import errors
from forkfirst.cli import declare, known
from forkfirst.plan import order
from forkfirst.stages import record, running

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from forkfirst.cli.known import KnownService
    from forkfirst.plan.service import Declaration
    from forkfirst.stages.running import Ended, Running

_PATIENCE_SECONDS = 2.0
"""What `stop` adds to a service's grace period: it ends by itself in that, and is not killed."""


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of *command*."""
    if command == "forget":
        parser.add_argument("names", nargs="+", metavar="NAME", help="a service that does not run")
        return
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a service; with none, every service in the configuration file",
    )
    parser.add_argument(
        "--grace-period",
        metavar="SECONDS",
        type=float,
        help="kill it if it has not stopped after so long (default: 2 s over its own)",
    )


def run(command: str, arguments: argparse.Namespace) -> int:
    """Do *command*; return its exit status."""
    from forkfirst.cli import main  # noqa: PLC0415 - it has loaded us

    if command == "forget":
        return forget(arguments.names)
    names = arguments.names or declare.list_declared(f"name one, to {command} it")
    services = [known.find(name) for name in names]
    if command == "restart":
        return restart(services, arguments.grace_period)
    return main.do_each(services, lambda service: stop(service, arguments.grace_period))


def stop(service: KnownService, grace: float | None) -> int:
    """Stop *service*, wait until it is gone, and say how it ended. Signals nothing else."""
    found = running.take(service.pid_file, service.owner)
    if found is None:
        if service.managed:
            message = f'cannot stop "{service.name}": its manager runs it, and would start it again'
            raise errors.UsageError(message, hint=f"systemctl stop {service.name}")
        raise known.make_not_running(service)
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
    if os.path.lexists(service.pid_file):  # it was killed, or may not remove its own files
        try:
            running.remove_leftovers(service.pid_file, service.control_socket, service.owner)
        except (errors.ForkfirstError, OSError):
            return ended  # it runs again, or its files are not ours: the next start replaces them
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


def restart(services: list[KnownService], grace: float | None) -> int:
    """Stop each service, then give the very command that started it, where it was given."""
    if len(services) == 1:
        _stop_to_restart(services[0], grace)
        os.execv(services[0].command[0], services[0].command)  # noqa: S606 - our own interpreter, no shell

    from forkfirst.cli import main  # noqa: PLC0415 - it has loaded us
    from forkfirst.stages import launch  # noqa: PLC0415 - only for several

    def act(service: KnownService) -> int:
        _stop_to_restart(service, grace)
        return launch.start_by_command(service.command)

    return main.do_each(services, act)


def _stop_to_restart(service: KnownService, grace: float | None) -> None:
    """Stop *service* if it runs, and be where its command means what it meant.

    Raises:
        ForkfirstError: It cannot be started again, so it was not stopped; or not be stopped.
    """
    if service.mode not in ("", order.DAEMON):
        message = f'cannot restart "{service.name}": it runs in the foreground'
        raise errors.UsageError(message, hint="whoever supervises it must start it again")
    if not service.command:
        message = f'cannot restart "{service.name}": nothing is known of how it was started'
        hint = known.find_near(service.name) or "start it with its target"
        raise errors.NotRunningError(message, hint=hint)
    service.go_where_it_was_started("restart")  # first: what cannot be started is not stopped
    found = running.take(service.pid_file, service.owner)
    if found is not None:
        end(service, found, grace)
    sys.stdout.flush()


def forget(names: list[str]) -> int:
    """Take each service off the list of `ps`; the first that cannot be forgotten ends it."""
    for name in names:
        if name not in known.list_names():
            message = f'nothing is known of a service "{name}"'
            hint = known.find_near(name) or "forkfirst ps lists those that are"
            raise errors.NotRunningError(message, hint=hint)
        service = known.find(name)
        try:
            record.forget(service.record, service.pid_file, service.control_socket, service.owner)
        except errors.AlreadyRunningError as error:
            error.args = (f"cannot forget {name}: it runs (pid {error.pid})",)
            error.hint = f"forkfirst stop {name}"
            raise
        stays = f"; its log stays: {service.log}" if os.path.exists(service.log) else ""
        print(f"{name}: forgotten{stays}")
    return 0
