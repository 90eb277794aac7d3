"""`start`, `run`, `stop`, `restart`: the commands that change whether a service runs."""

from __future__ import annotations

import os
import signal
import sys
import time

from forkfirst import errors
from forkfirst.cli import declare, known
from forkfirst.plan import order
from forkfirst.stages import launch, probe
from forkfirst.stages.start import Start
from forkfirst.unix import children, pidfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from forkfirst.cli.known import KnownService
    from forkfirst.plan.service import Declaration
    from forkfirst.stages.fork_first import Forked

_KILL_SECONDS = 5.0
"""How long a process may take to disappear after SIGKILL: only the kernel can hold it up."""


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
    services = declare.make_declarations(arguments)
    foreground = command == "run" or arguments.foreground
    if foreground and len(services) > 1:
        message = f"a foreground runs one service, but the file declares {len(services)}"
        raise errors.UsageError(message, hint="name one of them")
    if command == "start" and arguments.restart:
        for service in services:
            stop_if_running(service)
    forked = arguments.forked
    for service in services:
        start(service, _command_line(), foreground=foreground, forked=forked)
        forked = None  # it has become the first of them
    return 0


# -- start -----------------------------------------------------------------------------------------


def start(
    service: Declaration,
    command: tuple[str, ...],
    *,
    foreground: bool,
    program: Callable[..., object] | None = None,
    forked: Forked | None = None,
) -> None:
    """Start *service* and say so; in the foreground, exit with its status.

    Args:
        service: What was declared.
        foreground: Whether to stay in this process.
        command: The command line that would start it again.
        program: The function itself, where the service was declared in the person's own program.
        forked: The process that waits to be the service, if it was made already.

    Raises:
        ForkfirstError: It does not run, and nothing is left of it.
    """
    host = probe.read_host(detaching=not foreground and os.getpid() != 1)
    plan = order.make_plan(service, host, foreground=foreground)
    if not foreground and plan.mode != order.DAEMON:
        print(
            f"{service.name}: this is process 1, so there is nothing to detach from: "
            "running in the foreground",
            file=sys.stderr,
        )
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
    taken = pidfile.take_pidfd(service.pid_file)
    if taken is None:
        message = f'"{service.name}" is not running'
        raise errors.NotRunningError(message)
    pid, how = end(service, taken, grace)
    print(f"{service.name}: stopped (pid {pid}{how})")
    return 0


def end(
    service: KnownService, taken: tuple[int, int | None], grace: float | None
) -> tuple[int, str]:
    """Ask the process behind *taken* to stop, kill it after *grace* seconds, wait until it is gone.

    Returns:
        Its pid, and in words how it ended if that was not by itself.
    """
    pid, pidfd = taken
    seconds = service.grace_seconds() + 2 if grace is None else grace
    session = _own_session(service, pid)
    try:
        children.send_signal(pid, pidfd, signal.SIGTERM)
        how = ""
        if not children.wait_gone(pid, pidfd, seconds):
            how = f", killed: it had not stopped after {seconds:g} s"
            children.send_signal(pid, pidfd, signal.SIGKILL)
            if not children.wait_gone(pid, pidfd, _KILL_SECONDS):
                message = (
                    f'cannot stop "{service.name}": pid {pid} is still there {_KILL_SECONDS:g} s '
                    "after SIGKILL"
                )
                raise errors.StuckError(
                    message, hint="it waits in the kernel; see /proc/PID/stack, or dmesg"
                )
        left = children.end_session(session, signal.SIGKILL) if session else ()
    except PermissionError as error:
        message = f'cannot stop "{service.name}": pid {pid} belongs to another user'
        raise errors.PermissionRefusedError(message) from error
    except ProcessLookupError:
        return pid, ", which had just ended"
    finally:
        if pidfd is not None:
            os.close(pidfd)
    if left:
        processes = "process" if len(left) == 1 else f"{len(left)} processes"
        how += f", and the {processes} that it left behind"
    return pid, how


def _own_session(service: KnownService, pid: int) -> int:
    """Return the session that is this service's alone, or 0: then only its process is ended.

    A daemon's session leader is gone. In the foreground the session is the person's, with their
    shell in it, and a session whose leader lives is never touched.
    """
    if service.mode != order.DAEMON:
        return 0
    try:
        session = os.getsid(pid)
        os.kill(session, 0)
    except ProcessLookupError:
        return session
    except PermissionError:
        return 0
    return 0


def stop_if_running(declared: Declaration) -> None:
    """Stop the service of this declaration, if it runs."""
    service = known.of_declaration(declared)
    taken = pidfile.take_pidfd(service.pid_file)
    if taken is not None:
        end(service, taken, None)


def restart(service: KnownService, grace: float | None) -> int:
    """Stop *service*, then give the very command that started it, where it was given."""
    if service.mode not in ("", order.DAEMON):
        message = f'cannot restart "{service.name}": it runs in the foreground'
        raise errors.UsageError(message, hint="whoever supervises it must start it again")
    if not service.command:
        message = f'cannot restart "{service.name}": nothing is known of how it was started'
        raise errors.NotRunningError(message, hint="start it with its target")
    taken = pidfile.take_pidfd(service.pid_file)
    if taken is not None:
        end(service, taken, grace)
    os.chdir(service.directory)
    sys.stdout.flush()
    os.execv(service.command[0], service.command)  # noqa: S606 - our own interpreter, no shell
    raise AssertionError
