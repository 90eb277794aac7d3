"""How a service was started, kept beside its pid file.

Fields end with a NUL byte, as in /proc/PID/cmdline: no quoting, any byte that a path or an argument
can hold, and nothing to import (json would cost a start 3 ms).
"""

from __future__ import annotations

import os
import time

from forkfirst import errors
from forkfirst.stages.start import unlink_if_present
from forkfirst.unix import pidfile
from forkfirst.values import Value, replace

_VERSION = "3"
_FIXED_FIELDS = 9


class Record(Value):
    """What `restart`, `stop`, `status` and `logs` must know of a service beyond its name.

    Attributes:
        mode: How it runs: one of the modes of `plan.order`.
        directory: Where the command was given.
        pid_file: The file that is the lock.
        log: The log file, or "" where the output goes elsewhere.
        session: The session that is this daemon's alone; 0 in the foreground.
        control: Where it answers.
        owner: The user that it became, or is.
        command: The command line that starts the service again.
        ended: If it has ended by itself: its exit status, and when, in seconds since the epoch.
    """

    mode: str
    directory: str
    pid_file: str
    log: str
    session: int
    control: str
    owner: int
    command: tuple[str, ...]
    ended: tuple[int, ...] = ()


def write(path: str, record: Record) -> None:
    """Replace the record at *path*: a reader sees the old one, none, or the whole new one.

    The old one is removed first, because ext4 writes a file out at once when it is renamed over
    another (its mount option auto_da_alloc): 10 ms of a start, for a record that no reboot needs.

    Raises:
        OSError: It cannot be written.

    Source: rename(2).
    """
    fields = (
        *(_VERSION, record.mode, record.directory, record.pid_file, record.log),
        *(str(record.session), record.control, str(record.owner)),
        *(" ".join(map(str, record.ended)), *record.command),
    )
    _replace(path, b"".join(os.fsencode(field) + b"\0" for field in fields))


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        while data:
            data = data[os.write(fd, data) :]
        unlink_if_present(path)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def note_end(path: str, status: int) -> None:
    """Note in the record at *path* that its service, which holds its lock still, ends by itself.

    Raises:
        OSError: It cannot be written.
        ForkfirstError: It is not ours to read.
    """
    kept = read(path)
    if kept is not None:
        write(path, replace(kept, ended=(status, int(time.time()))))


def read_old(path: str) -> bytes | None:
    """Return the whole record at *path*, for `put_back`; None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def put_back(path: str, old: bytes | None) -> None:
    """Make the record at *path* what `read_old` has returned: a failed start changes nothing."""
    if old is None:
        unlink_if_present(path)
    else:
        _replace(path, old)


def forget(path: str, pid_file: str, control: str, owner: int | None = None) -> None:
    """Remove the record at *path*, and what a service that was killed has left.

    *owner* is the user that the service became, if it became one.

    Raises:
        AlreadyRunningError: It runs, under *pid_file*.
    """
    from forkfirst.stages import running  # noqa: PLC0415 - only to forget

    running.remove_leftovers(pid_file, control, owner)
    unlink_if_present(path)


def refuse_another(path: str, pid_file: str) -> None:
    """Refuse if the record at *path* is of a service that runs under another pid file.

    Raises:
        AlreadyRunningError: It is, and does.
    """
    try:
        kept = read(path)
        if kept is None or kept.pid_file == pid_file:
            return
        holder = pidfile.look_up_holder(kept.pid_file, kept.owner)
    except errors.ForkfirstError:
        return  # of another version, or moved: its own lock is what counts
    if holder is not None:
        message = f"already running (pid {holder.pid}), under {kept.pid_file}"
        raise errors.AlreadyRunningError(message, pid=holder.pid)


def read(path: str) -> Record | None:
    """Return the record at *path*, or None if there is none.

    Raises:
        ForkfirstError: There is one, but it is not ours to read or was not written by us.
    """
    try:
        with open(path, "rb") as file:
            fields = [os.fsdecode(field) for field in file.read().split(b"\0")[:-1]]
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"cannot read {path}: {(error.strerror or str(error)).lower()}"
        raise errors.PermissionRefusedError(message) from error
    known = len(fields) >= _FIXED_FIELDS and fields[0] == _VERSION
    if not known or not "".join((fields[5], fields[7], *fields[8].split())).isdecimal():
        message = f"cannot read {path}: not a record of forkfirst, or of another version"
        raise errors.ForkfirstError(message)
    _, mode, directory, pid_file, log, session, control, owner, ended, *command = fields
    return Record(
        mode=mode,
        directory=directory,
        pid_file=pid_file,
        log=log,
        session=int(session),
        control=control,
        owner=int(owner),
        command=tuple(command),
        ended=tuple(map(int, ended.split())),
    )
