"""`forget`: a service that is not meant to come back leaves the list of `ps`."""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.cli import known
from forkfirst.stages import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `forget`."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="a service that does not run")


def run(_: str, arguments: argparse.Namespace) -> int:
    """Forget each service; the first that cannot be forgotten ends it."""
    for name in arguments.names:
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
