"""`forget`: a service that is not meant to come back leaves the list of `ps`."""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.cli import known
from forkfirst.control.server import remove_socket
from forkfirst.stages.start import unlink_if_present
from forkfirst.unix import pidfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from forkfirst.cli.known import KnownService


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `forget`."""
    parser.add_argument("names", nargs="+", metavar="name", help="a service that does not run")


def run(_: str, arguments: argparse.Namespace) -> int:
    """Forget each service; the first that cannot be forgotten ends it."""
    for name in arguments.names:
        if name not in known.list_names():
            message = f'nothing is known of a service "{name}"'
            raise errors.NotRunningError(message, hint="forkfirst ps lists those that are")
        log = forget(known.find(name))
        print(f"{name}: forgotten" + (f"; its log stays: {log}" if log else ""))
    return 0


def forget(service: KnownService) -> str:
    """Remove what a dead *service* has left and what is noted of it; return its log, or "".

    Raises:
        AlreadyRunningError: It runs.
    """
    try:
        # Whoever has the lock is the only one to start it, so nothing of a running one goes.
        held = pidfile.acquire(service.pid_file, os.getpid())
    except errors.AlreadyRunningError as error:
        error.args = (f"cannot forget {service.name}: it runs (pid {error.pid})",)
        error.hint = f"forkfirst stop {service.name}"
        raise
    try:
        remove_socket(service.control_socket)  # of one that was killed
        unlink_if_present(service.record)
    finally:
        held.release()
    return service.log if os.path.exists(service.log) else ""
