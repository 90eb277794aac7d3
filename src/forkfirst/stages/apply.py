"""The one table: step to function. Each function does what its step says, and nothing else.

A step that makes something also says how to undo it, so that a start that fails at any later
point leaves nothing. A test replaces entries of the table; nothing replaces `os`.
"""

from __future__ import annotations

import os
import stat
import sys

from forkfirst import errors
from forkfirst.plan import steps
from forkfirst.stages import fork_first
from forkfirst.stages.fork_first import NO_DESCRIPTOR
from forkfirst.stages.start import unlink_if_present
from forkfirst.unix import log_file, pidfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from forkfirst.stages.fork_first import Table
    from forkfirst.stages.start import Start


class _Nobody:
    """The context in which nobody else is acted for."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NOBODY_ELSE = _Nobody()

# -- in the launcher -------------------------------------------------------------------------------


def _check_target(step: steps.CheckTarget, start: Start) -> None:
    if start.program is not None:
        return
    from forkfirst.runtime import target  # noqa: PLC0415 - only where the program is named by text

    target.check_exists(step.target, step.directory)


def _check_server(step: steps.CheckServer, _: Start) -> None:
    from forkfirst.runtime import target  # noqa: PLC0415 - only for an application

    if not target.is_installed(step.server):
        message = f"cannot serve with {step.server}: it is not installed"
        raise errors.ConfigError(message, hint=f"pip install 'forkfirst[{step.server}]'")


def _check_command(step: steps.CheckCommand, start: Start) -> None:
    name = step.command
    folders = [""] if "/" in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in folders:
        path = step.root + os.path.join(start.directory, folder, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return
    place = "" if "/" in name else " on the PATH"
    message = f"cannot run {name}: no such executable{place}"
    raise errors.TargetError(message)


def _make_directory(step: steps.MakeDirectory, _: Start) -> None:
    try:
        if step.owner is not None:
            from forkfirst.stages import confining  # noqa: PLC0415 - only for another user

            confining.make_directory(step.path, step.mode, step.owner)
            return
        os.makedirs(step.path, mode=step.mode, exist_ok=True)
    except FileExistsError as error:
        message = f"cannot make directory {step.path}: something else has that name"
        raise errors.CannotCreateError(message) from error
    if not step.private:
        return
    facts = os.stat(step.path)
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o022:
        message = (
            f"cannot trust directory {step.path}: it belongs to uid {facts.st_uid} with mode "
            f"{stat.S_IMODE(facts.st_mode):04o}, so others could replace the pid file"
        )
        raise errors.UnsafePathError(message, hint="it must be yours, and writable by nobody else")


def _lock_pid_file(step: steps.LockPidFile, start: Start) -> None:
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


def _open_log(step: steps.OpenLog, start: Start) -> None:
    with _owner_of(step.path, start):
        start.log, created = log_file.open_log(step.path, step.mode)
    start.log_offset = os.fstat(start.log).st_size
    if created:
        start.on_failure(lambda: unlink_if_present(step.path))


def _open_listener(step: steps.OpenListener, start: Start) -> None:
    from forkfirst.stages import listeners  # noqa: PLC0415 - only where there is a listener

    start.listeners.append((step.listener.name, listeners.open_listener(step.listener)))
    if step.listener.path:
        start.made_path(step.listener.path)


def _open_control_socket(step: steps.OpenControlSocket, start: Start) -> None:
    from forkfirst.control import server  # noqa: PLC0415 - its imports are loaded by now

    with _owner_of(step.path, start):
        start.control = server.open_socket(step.path)
    start.made_path(step.path)


def _keep_record(step: steps.KeepRecord, start: Start) -> None:
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


def _hand_over(_: steps.HandOver, start: Start) -> None:
    from forkfirst.stages import handover  # noqa: PLC0415 - not in the foreground

    handover.hand_over(start)


def _await_ready(step: steps.AwaitReady, start: Start) -> None:
    from forkfirst.stages import launch  # noqa: PLC0415 - launch imports this table

    launch.await_ready(step, start)


# -- in the service --------------------------------------------------------------------------------


def _reset_signal_handlers(_: steps.ResetSignalHandlers, __: Start) -> None:
    from forkfirst.unix import signals  # noqa: PLC0415 - the launcher needs none of it

    signals.reset_handlers()


def _unblock_signals(_: steps.UnblockSignals, __: Start) -> None:
    from forkfirst.unix import signals  # noqa: PLC0415 - as above

    signals.unblock_all()


_OF_THE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Variables that `managed.telling` takes out when it has read them."""


def _clean_environment(step: steps.CleanEnvironment, start: Start) -> None:
    for name in step.remove:
        os.environ.pop(name, None)
    start.environment = dict(os.environ)
    for name in _OF_THE_MANAGER:
        start.environment.pop(name, None)
    declared = dict(start.plan.service.environment)
    for name, value in step.assign:
        os.environ[name] = value
        if name not in declared:  # who the user is, once this has become another
            start.environment[name] = value


def _set_umask(step: steps.SetUmask, _: Start) -> None:
    os.umask(step.umask)


def _change_directory(step: steps.ChangeDirectory, _: Start) -> None:
    os.chdir(step.path)


def _redirect_standard_streams(_: steps.RedirectStandardStreams, start: Start) -> None:
    from forkfirst.unix import stdio  # noqa: PLC0415 - as above

    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    stdio.redirect(nothing if start.plan.mode == "daemon" else 0, start.log, start.log)
    os.close(nothing)
    if sys.stdin is None:  # it was closed when we were started, so Python has made no stream of it
        stream = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays
        for name in ("stdin", "__stdin__"):
            setattr(sys, name, stream)


def _close_descriptors(_: steps.CloseDescriptors, start: Start) -> None:
    from forkfirst.unix import descriptors  # noqa: PLC0415 - as above

    kept = (
        fd for fd in (*start.descriptors(), start.report_to) if fd not in (start.log, NO_DESCRIPTOR)
    )
    descriptors.close_all_except(kept)


def _write_pid(_: steps.WritePid, start: Start) -> None:
    if start.pid_file is not None:
        start.pid_file.rewrite(os.getpid())


def _serve_control(_: steps.ServeControl, start: Start) -> None:
    from forkfirst.stages import child  # noqa: PLC0415 - after the fork only

    child.serve_control(start)


def _run_program(_: steps.RunProgram, start: Start) -> None:
    from forkfirst.stages import child  # noqa: PLC0415 - after the fork only

    child.run_program(start)


class _Table(dict[type[steps.Step], "Callable[[Any, Any], None]"]):
    """Also finds the steps that few services have, in the module that takes them."""

    def __missing__(self, kind: type[steps.Step]) -> Callable[[Any, Any], None]:
        room = __import__(f"forkfirst.stages.{kind.taken_in}", fromlist=["TABLE"])
        function: Callable[[Any, Any], None] = room.TABLE[kind]
        return function


_ENTRIES: Table = {
    **fork_first.TABLE,
    steps.CheckTarget: _check_target,
    steps.CheckServer: _check_server,
    steps.CheckCommand: _check_command,
    steps.MakeDirectory: _make_directory,
    steps.LockPidFile: _lock_pid_file,
    steps.OpenLog: _open_log,
    steps.OpenListener: _open_listener,
    steps.OpenControlSocket: _open_control_socket,
    steps.KeepRecord: _keep_record,
    steps.HandOver: _hand_over,
    steps.ResetSignalHandlers: _reset_signal_handlers,
    steps.UnblockSignals: _unblock_signals,
    steps.CleanEnvironment: _clean_environment,
    steps.SetUmask: _set_umask,
    steps.ChangeDirectory: _change_directory,
    steps.RedirectStandardStreams: _redirect_standard_streams,
    steps.CloseDescriptors: _close_descriptors,
    steps.WritePid: _write_pid,
    steps.ServeControl: _serve_control,
    steps.RunProgram: _run_program,
    steps.AwaitReady: _await_ready,
}
TABLE: Table = _Table(_ENTRIES)


def with_changes(table: Table) -> Table:
    """Return this table with the entries of *table* in the place of its own."""
    return _Table({**TABLE, **table})
