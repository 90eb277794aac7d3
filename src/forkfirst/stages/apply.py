"""The one table: step to function. Each function does what its step says, and nothing else.

A step that makes something also says how to undo it, so that a start that fails at any later
point leaves nothing. A test replaces entries of the table; nothing replaces `os`.
"""

from __future__ import annotations

import errno
import os
import stat

from forkfirst import errors
from forkfirst.plan import steps
from forkfirst.stages.start import ENDING_SIGNALS, unlink_if_present
from forkfirst.unix import channel, descriptors, log_file, pidfile, session, signals, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from forkfirst.plan.listener import Listener
    from forkfirst.stages.start import Start

    Table = Mapping[type[steps.Step], Callable[[Any, Start], None]]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def apply_steps(chosen: Iterable[steps.Step], start: Start, table: Table) -> None:
    """Take each step of *chosen*, in order.

    Raises:
        ForkfirstError: A step failed; the text names the step and what it was about.
    """
    for step in chosen:
        try:
            try:
                table[type(step)](step, start)
            except OSError as error:
                raise refuse(step, error) from error
        except errors.ForkfirstError as error:
            error.args = (f'cannot start "{start.plan.service.name}": {error}',)
            raise


def refuse(step: steps.Step, error: OSError) -> errors.ForkfirstError:
    """Say which step the kernel refused, and why."""
    reason = (error.strerror or str(error)).lower()
    where = f" ({error.filename})" if error.filename and error.filename not in step else ""
    message = f"cannot {step.describe()}: {reason}{where}"
    if error.errno in _FULL:
        return errors.DiskFullError(message, hint="free some space, or choose another place")
    if error.errno in (errno.EACCES, errno.EPERM):
        return errors.PermissionRefusedError(message)
    if error.errno in (errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR):
        return errors.CannotCreateError(message)
    if error.errno == errno.ENOENT:
        return errors.ConfigError(message)
    hint = ""
    if error.errno in (errno.EAGAIN, errno.ENOMEM) and isinstance(
        step, steps.Fork | steps.ForkAgain
    ):
        hint = "the limit of processes (ulimit -u, pids.max) or the memory is used up"
    return errors.SystemRefusedError(message, hint=hint)


# -- in the launcher --------------------------------------------------------------------------------


def _hold_standard_descriptors(_: steps.HoldStandardDescriptors, __: Start) -> None:
    stdio.hold_standard_descriptors()


def _check_target(step: steps.CheckTarget, start: Start) -> None:
    if start.program is not None:
        return
    from forkfirst.runtime import target  # noqa: PLC0415 - only where the program is named by text

    target.check_exists(step.target, step.directory)


def _check_command(step: steps.CheckCommand, start: Start) -> None:
    name = step.command
    folders = [""] if "/" in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in folders:
        path = os.path.join(start.directory, folder, name)  # noqa: PTH118 - no pathlib before the fork
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112 - as above
            return
    place = "" if "/" in name else " on the PATH"
    message = f"cannot run {name}: no such executable{place}"
    raise errors.TargetError(message)


def _make_directory(step: steps.MakeDirectory, _: Start) -> None:
    try:
        os.makedirs(step.path, mode=step.mode, exist_ok=True)  # noqa: PTH103 - no pathlib before the fork
    except FileExistsError as error:
        message = f"cannot make directory {step.path}: something else has that name"
        raise errors.CannotCreateError(message) from error
    if not step.private:
        return
    facts = os.stat(step.path)  # noqa: PTH116 - no pathlib before the fork
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o022:
        message = (
            f"cannot trust directory {step.path}: it belongs to uid {facts.st_uid} with mode "
            f"{stat.S_IMODE(facts.st_mode):04o}, so others could replace the pid file"
        )
        raise errors.UnsafePathError(
            message, hint="it must be yours, and writable by nobody else"
        )


def _lock_pid_file(step: steps.LockPidFile, start: Start) -> None:
    lock = start.pid_file = pidfile.acquire(step.path, os.getpid())
    start.on_end(lock.release)


def _open_log(step: steps.OpenLog, start: Start) -> None:
    start.log, created = log_file.open_log(step.path, step.mode)
    start.log_offset = os.fstat(start.log).st_size
    if created:
        start.on_failure(lambda: unlink_if_present(step.path))


def _import_runtime_module(step: steps.ImportRuntimeModule, _: Start) -> None:
    __import__(step.module)


def _open_listener(step: steps.OpenListener, start: Start) -> None:
    from forkfirst.stages import listeners  # noqa: PLC0415 - only where there is a listener

    listener: Listener = step.listener
    fd, tidy = listeners.open_listener(listener)
    start.listeners.append((listener.name, fd))
    if tidy is not None:
        start.on_end(tidy)


def _open_control_socket(step: steps.OpenControlSocket, start: Start) -> None:
    from forkfirst.control import server  # noqa: PLC0415 - its imports are loaded by now

    start.control = server.open_socket(step.path)
    start.on_end(lambda: unlink_if_present(step.path))


def _keep_record(step: steps.KeepRecord, start: Start) -> None:
    from forkfirst.stages import record  # noqa: PLC0415 - keeps this table readable

    places = start.plan.places
    record.write(
        step.path,
        record.Record(
            mode=start.plan.mode,
            directory=start.directory,
            pid_file=places.pid_file,
            log=places.log if start.log >= 0 else "",
            command=start.command,
        ),
    )
    start.on_failure(lambda: unlink_if_present(step.path))


def _open_report(_: steps.OpenReport, start: Start) -> None:
    receive, start.report_to = channel.open_channel()
    start.report = channel.Reader(receive)


def _judge_fork(_: steps.JudgeFork, __: Start) -> None:
    from forkfirst.guard import verdict  # noqa: PLC0415 - only a start that forks needs it

    verdict.assert_fork_safe()


# -- in the service ---------------------------------------------------------------------------------


def _reset_signal_handlers(_: steps.ResetSignalHandlers, __: Start) -> None:
    signals.reset_handlers()


def _unblock_signals(_: steps.UnblockSignals, __: Start) -> None:
    signals.unblock_all()


def _clean_environment(step: steps.CleanEnvironment, _: Start) -> None:
    for name in step.remove:
        os.environ.pop(name, None)
    for name, value in step.assign:
        os.environ[name] = value


def _set_umask(step: steps.SetUmask, _: Start) -> None:
    os.umask(step.umask)


def _change_directory(step: steps.ChangeDirectory, _: Start) -> None:
    os.chdir(step.path)


def _redirect_standard_streams(_: steps.RedirectStandardStreams, start: Start) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    stdio.redirect(nothing if start.plan.mode == "daemon" else 0, start.log, start.log)
    os.close(nothing)


def _close_descriptors(_: steps.CloseDescriptors, start: Start) -> None:
    descriptors.close_all_except(start.kept_descriptors())


def _write_pid(_: steps.WritePid, start: Start) -> None:
    if start.pid_file is not None:
        start.pid_file.rewrite(os.getpid())


def _serve_control(_: steps.ServeControl, start: Start) -> None:
    from forkfirst.stages import child  # noqa: PLC0415 - after the fork only

    child.serve_control(start)


def _run_program(_: steps.RunProgram, start: Start) -> None:
    from forkfirst.stages import child  # noqa: PLC0415 - after the fork only

    child.run_program(start)


# -- which process we are in --------------------------------------------------------------------


def _fork(_: steps.Fork, start: Start) -> None:
    # A signal must not find the launcher between the fork and its handlers; `launch` and the
    # service unblock them again.
    signals.block(ENDING_SIGNALS)
    start.child = session.fork()


def _start_session(_: steps.StartSession, __: Start) -> None:
    session.start_session()


def _fork_again(_: steps.ForkAgain, start: Start) -> None:
    start.child = session.fork()


def _await_ready(step: steps.AwaitReady, start: Start) -> None:
    from forkfirst.stages import launch  # noqa: PLC0415 - launch imports this table

    launch.await_ready(step, start)


TABLE: Table = {
    steps.HoldStandardDescriptors: _hold_standard_descriptors,
    steps.CheckTarget: _check_target,
    steps.CheckCommand: _check_command,
    steps.MakeDirectory: _make_directory,
    steps.LockPidFile: _lock_pid_file,
    steps.OpenLog: _open_log,
    steps.ImportRuntimeModule: _import_runtime_module,
    steps.OpenListener: _open_listener,
    steps.OpenControlSocket: _open_control_socket,
    steps.KeepRecord: _keep_record,
    steps.OpenReport: _open_report,
    steps.JudgeFork: _judge_fork,
    steps.Fork: _fork,
    steps.StartSession: _start_session,
    steps.ForkAgain: _fork_again,
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
assert set(TABLE) == set(steps.Step.__subclasses__())  # noqa: S101 - a step without a function is a bug
