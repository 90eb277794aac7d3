"""The steps that prepare a start: what the service will need is checked, locked and opened.

A step that makes something also says how to undo it, so that a start that fails at any later
point leaves nothing.
"""

from __future__ import annotations

import os
import stat

from forkfirst import errors
from forkfirst.plan import preparation, steps
from forkfirst.stages import taking
from forkfirst.stages.start import unlink_if_present

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table


class _Nobody:
    """The context in which nobody else is acted for."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NOBODY_ELSE = _Nobody()


def _hold_standard_descriptors(_: steps.HoldStandardDescriptors, __: Start) -> None:
    from forkfirst.unix import stdio  # noqa: PLC0415 - in the foreground; else `fork_first` has it

    stdio.hold_standard_descriptors()


def _check_target(step: preparation.CheckTarget, start: Start) -> None:
    if start.program is not None:
        return
    from forkfirst.runtime import target  # noqa: PLC0415 - only where the program is named by text

    target.check_exists(step.target, step.directory)


def _check_server(step: preparation.CheckServer, _: Start) -> None:
    from forkfirst.runtime import target  # noqa: PLC0415 - only for an application

    if not target.is_installed(step.server):
        message = f"cannot serve with {step.server}: it is not installed"
        raise errors.ConfigError(message, hint=f"pip install 'forkfirst[{step.server}]'")


def _check_command(step: preparation.CheckCommand, start: Start) -> None:
    name = step.command
    folders = [""] if "/" in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in folders:
        path = step.root + os.path.join(start.directory, folder, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return
    place = "" if "/" in name else " on the PATH"
    message = f"cannot run {name}: no such executable{place}"
    raise errors.TargetError(message)


def _make_directory(step: preparation.MakeDirectory, _: Start) -> None:
    try:
        if step.owner is not None:
            from forkfirst.stages import confining  # noqa: PLC0415 - only for another user

            confining.make_directory(step.path, step.mode, step.owner)
            return
        os.makedirs(step.path, mode=step.mode, exist_ok=True)
    except FileExistsError as error:
        message = f"cannot make directory {step.path}: something else has that name"
        raise errors.CannotCreateError(message) from error
    except OSError as error:
        refusal = taking.explain_refusal(step, error)
        # As in a container: no home directory, or one that is not this user's.
        refusal.hint = refusal.hint or "let FORKFIRST_STATE_DIR name a directory of this user's"
        raise refusal from error
    if not step.private:
        return
    facts = os.stat(step.path)
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o022:
        message = (
            f"cannot trust directory {step.path}: it belongs to uid {facts.st_uid} with mode "
            f"{stat.S_IMODE(facts.st_mode):04o}, so others could replace the pid file"
        )
        raise errors.UnsafePathError(message, hint="it must be yours, and writable by nobody else")


def _lock_pid_file(step: preparation.LockPidFile, start: Start) -> None:
    from forkfirst.unix import pidfile  # noqa: PLC0415 - only where there is one

    try:
        with _owner_of(step.path, start):
            start.pid_file = pidfile.acquire(step.path, os.getpid())
    except errors.AlreadyRunningError as error:
        from forkfirst.stages import running  # noqa: PLC0415 - only for a failure

        identity = start.plan.identity
        if running.is_orphaned(step.path, None if identity is None else identity.uid):
            message = f"pid {error.pid} is dead, but what it left behind holds its lock"
            error.args = (message,)
            error.hint = f"forkfirst stop {start.plan.service.name} ends that"
        raise


def _owner_of(path: str, start: Start) -> AbstractContextManager[None]:
    """Make what is made in a directory of the new user's that user's own; see `confining`."""
    if start.plan.identity is None:
        return _NOBODY_ELSE
    from forkfirst.stages import confining  # noqa: PLC0415 - only for another user

    return confining.acting_as_owner(start.plan.identity, os.path.dirname(path))


def _open_log(step: preparation.OpenLog, start: Start) -> None:
    from forkfirst.unix import log_file  # noqa: PLC0415 - only where there is one

    with _owner_of(step.path, start):
        start.log, created = log_file.open_log(step.path, step.mode)
    start.log_offset = os.fstat(start.log).st_size
    if created:
        start.on_failure(lambda: unlink_if_present(step.path))


def _open_listener(step: preparation.OpenListener, start: Start) -> None:
    from forkfirst.stages import listeners  # noqa: PLC0415 - only where there is a listener

    opened = listeners.open_sockets(step)
    start.listeners.append((step.listener.name, opened[0]))
    if step.spread:
        start.spread[opened[0]] = opened[1:]
    if step.listener.path:
        start.made_path(step.listener.path)


def _open_control_socket(step: preparation.OpenControlSocket, start: Start) -> None:
    from forkfirst.control import server  # noqa: PLC0415 - its imports are loaded by now

    with _owner_of(step.path, start):
        start.control = server.open_socket(step.path)
    start.made_path(step.path)


def _keep_record(step: preparation.KeepRecord, start: Start) -> None:
    from forkfirst.stages import record  # noqa: PLC0415 - keeps this table readable

    places = start.plan.places
    identity = start.plan.identity
    record.refuse_another(step.path, places.pid_file)
    old = record.read_old(step.path)
    record.write(
        step.path,
        record.Record(
            mode=start.plan.mode,
            directory=start.directory,
            pid_file=places.pid_file,
            log=places.log if start.log >= 0 else "",
            session=start.forked.child if start.forked is not None else 0,
            control=places.control_socket,
            owner=os.geteuid() if identity is None else identity.uid,
            command=start.command,
        ),
    )
    # Only a daemon can be restarted by its name; of another there is nothing to be known later.
    if start.forked is not None:
        start.on_failure(lambda: record.put_back(step.path, old))
    else:
        start.replaced = step.path, old


TABLE: Table = {
    steps.HoldStandardDescriptors: _hold_standard_descriptors,
    preparation.CheckTarget: _check_target,
    preparation.CheckServer: _check_server,
    preparation.CheckCommand: _check_command,
    preparation.MakeDirectory: _make_directory,
    preparation.LockPidFile: _lock_pid_file,
    preparation.OpenLog: _open_log,
    preparation.OpenListener: _open_listener,
    preparation.OpenControlSocket: _open_control_socket,
    preparation.KeepRecord: _keep_record,
}
