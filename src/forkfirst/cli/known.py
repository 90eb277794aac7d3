"""From a service's name to what is known of it: its record, its pid file, its answers."""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.plan import places
from forkfirst.plan.service import check_name
from forkfirst.stages import probe, record
from forkfirst.values import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from forkfirst.plan.host import Host
    from forkfirst.plan.service import Declaration

DEFAULT_GRACE_SECONDS = 10.0


class KnownService(Value):
    """A service by its name, running or not.

    Attributes:
        name: The service.
        pid_file: The file that is its lock.
        control_socket: Where it answers while it runs.
        record: Where it is noted how it was started.
        mode: How it was last started; "" if that is not known.
        log: Its log file, or "" where its output goes elsewhere.
        session: The session that is its own, if it is a daemon; else 0.
        owner: The user that it became, which the pid file is that of; None if it became nobody.
        managed: Whether a manager runs it, and so it has no pid file.
        directory: Where it was started.
        command: What starts it again; empty if it was never started in the background.
        ended: If it has ended by itself: its exit status, and when, in seconds since the epoch.
        doubt: Why its record cannot be read, and the rest is only what is usual; or "".
    """

    name: str
    pid_file: str
    control_socket: str
    record: str
    log: str
    mode: str = ""
    session: int = 0
    owner: int | None = None
    managed: bool = False
    directory: str = "/"
    command: tuple[str, ...] = ()
    ended: tuple[int, ...] = ()
    doubt: str = ""

    def ask(
        self, request: str, *, seconds: float = 2.0, passing: Sequence[int] = (), **fields: Any
    ) -> dict[str, Any]:
        """Ask the running service; see `control.client.ask` for the errors."""
        from forkfirst.control import client  # noqa: PLC0415 - not every command asks

        where = self.control_socket
        try:
            return client.ask(where, request, seconds=seconds, passing=passing, **fields)
        except errors.NotRunningError as error:
            refusal = make_not_running(self)
            where = where.replace("\0", "@", 1)
            refusal.args = (f"{refusal}: nobody listens on {where}",)
            raise refusal from error

    def go_where_it_was_started(self, attempt: str) -> None:
        """Change to the directory in which its command means what it meant.

        Raises:
            SystemRefusedError: It is not there any more; *attempt* is what was to be done.
        """
        try:
            os.chdir(self.directory)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            message = (
                f'cannot {attempt} "{self.name}": it was started in {self.directory}, '
                f"which cannot be entered: {why}"
            )
            hint = "make that directory again, or stop it and start it elsewhere"
            raise errors.SystemRefusedError(message, hint=hint) from error

    def grace_seconds(self) -> float:
        """Return the grace period that the running service says it has."""
        try:
            return float(self.ask("status", seconds=1.0)["grace_seconds"])
        except errors.ForkfirstError:
            return DEFAULT_GRACE_SECONDS


def find(name: str) -> KnownService:
    """Return what is known of the service *name*; it need not run, nor ever have run."""
    check_name(name)
    host = probe.read_host(detaching=False)
    default = places.find_places(name, host)
    kept, doubt = None, ""
    if host.uid == 0 or os.path.exists(default.pid_file) or not _is_granted(name, host):
        try:
            kept = record.read(default.record)
        except errors.ForkfirstError as error:
            # Of another version, say: who holds the usual lock runs all the same.
            doubt = str(error)
    else:
        default = places.find_granted_places(name, host)
    # A manager that gives it a directory of its own name has it listen there, without a pid file.
    own = f"/run/{name}/{name}.sock"
    managed = os.path.exists(own) and not os.path.lexists(default.pid_file)
    if kept is None or managed:
        return KnownService(
            name=name,
            pid_file=default.pid_file,
            control_socket=own if managed else default.control_socket,
            managed=managed,
            record=default.record,
            log="" if managed else default.log,
            doubt=doubt,
        )
    return KnownService(
        name=name,
        pid_file=kept.pid_file,
        control_socket=kept.control,
        record=default.record,
        log=kept.log,
        mode=kept.mode,
        session=kept.session,
        owner=kept.owner,
        directory=kept.directory,
        command=kept.command,
        ended=kept.ended,
    )


def _is_granted(name: str, host: Host) -> bool:
    """Return whether root has started a service of that name for this very user."""
    return os.path.exists(places.find_granted_places(name, host).pid_file)


def make_not_running(service: KnownService) -> errors.NotRunningError:
    """Return what to say if *service* does not run, and perhaps what was meant."""
    message = f'"{service.name}" is not running'
    if service.doubt:
        hint = f"forkfirst forget {service.name} removes that"
        return errors.NotRunningError(
            f"{message}, or not where it usually is: {service.doubt}", hint=hint
        )
    if service.ended:
        hint = f"forkfirst logs {service.name}"
        return errors.NotRunningError(f"{message}: {describe_end(service)}", hint=hint)
    return errors.NotRunningError(message, hint=find_near(service.name))


def describe_end(service: KnownService) -> str:
    """Say how and when *service* has ended by itself; "" if it has not."""
    if not service.ended:
        return ""
    import time  # noqa: PLC0415 - built in

    status, when = service.ended
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    return f"it ended by itself at {at}, with status {status}"


def find_near(name: str) -> str:
    """Return a hint if *name* is of no service, but much like that of one; else ""."""
    try:
        names = list_names()
    except errors.ForkfirstError:
        return ""
    if not names or name in names:
        return ""
    import difflib  # noqa: PLC0415 - only for a mistake

    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else "forkfirst ps lists the services that are known"


def of_declaration(service: Declaration) -> KnownService:
    """Return what is known of a service that was just declared, under its own pid file."""
    found = find(service.name)
    return replace(found, pid_file=service.pid_file) if service.pid_file else found


def list_names() -> list[str]:
    """Return the names of all services of this user that run or have left something, sorted."""
    host = probe.read_host(detaching=False)
    names = _list_names(places.find_run_directory(host), (".service", ".pid"))
    if host.uid != 0:
        names |= _list_names(places.find_granted_places("any", host).run_directory, (".pid",))
    return sorted(names)


def _list_names(directory: str, suffixes: tuple[str, ...]) -> set[str]:
    try:
        entries = os.listdir(directory)
    except FileNotFoundError:
        return set()
    except OSError as error:
        message = f"cannot list {directory}: {(error.strerror or str(error)).lower()}"
        raise errors.PermissionRefusedError(message) from error
    return {name.rpartition(".")[0] for name in entries if name.endswith(suffixes)}
