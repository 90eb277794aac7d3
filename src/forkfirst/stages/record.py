"""How a service was started, kept beside its pid file.

Fields end with a NUL byte, as in /proc/PID/cmdline: no quoting, any byte that a path or an argument
can hold, and nothing to import (json would cost a start 3 ms).
"""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.stages.start import unlink_if_present
from forkfirst.values import Value

_VERSION = "1"
_FIXED_FIELDS = 6


class Record(Value):
    """What `restart`, `stop`, `status` and `logs` must know of a service beyond its name.

    Attributes:
        mode: How it runs: one of the modes of `plan.order`.
        directory: Where the command was given.
        pid_file: The file that is the lock.
        log: The log file, or "" where the output goes elsewhere.
        session: The session that is this daemon's alone; 0 in the foreground.
        command: The command line that starts the service again.
    """

    mode: str
    directory: str
    pid_file: str
    log: str
    session: int
    command: tuple[str, ...]


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
        *(str(record.session), *record.command),
    )
    data = b"".join(os.fsencode(field) + b"\0" for field in fields)
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
    if len(fields) < _FIXED_FIELDS or fields[0] != _VERSION or not fields[5].isdecimal():
        message = f"cannot read {path}: not a record of forkfirst, or of another version"
        raise errors.ForkfirstError(message)
    _, mode, directory, pid_file, log, session, *command = fields
    return Record(
        mode=mode,
        directory=directory,
        pid_file=pid_file,
        log=log,
        session=int(session),
        command=tuple(command),
    )
