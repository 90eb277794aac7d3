"""The pid file that is the lock: who holds the lock runs, and the file says its pid.

Invariants, each kept by the order of the steps below:

* A visible file is never empty or half-written: it is written and locked before it gets its name.
* A stale file is never overwritten: who has its flock takes the name away, then gives the name to a
  new file.
* A file whose lock is marked (see `file_lock`) names its holder: only files that were made here for
  a service are marked, so no pid of the dead is taken for the living.

Limits: whoever may read the file may flock it; that cannot make a service look alive, but can keep
a stale file from being replaced, and `acquire` says so then. Where there are no marks, a starter
that loses a race for a stale file may name the dead process instead of the winner.
"""

from __future__ import annotations

import errno
import os
import time

from forkfirst import errors
from forkfirst.unix import children, file_lock, trust
from forkfirst.unix.held_pidfile import PidFile, explain
from forkfirst.values import Value

MODE = 0o644
_ATTEMPTS = 1000
_PAUSE_SECONDS = 0.002  # between attempts, while another starter is between two of its steps
_PID_BYTES = 32
# Never hang on a fifo put there, never get a terminal, never follow a link.
_LOOK = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Holder(Value):
    """The process that a locked pid file names."""

    pid: int


def acquire(path: str, pid: int) -> PidFile:
    """Make the pid file *path*, locked and naming *pid*, or say who has it.

    A file that nobody has locked is stale, whatever it holds (a pid of the dead, one used again
    by somebody else, rubbish, nothing), and is replaced. Never waits for a running service.

    Raises:
        AlreadyRunningError: A service holds it; the error has its pid.
        UnsafePathError: The file is a link, no regular file, somebody else's, or writable by
            others; or the directory is somebody else's or world-writable, sticky or not.
        CannotCreateError: The file cannot be created, or its lock is held by a stranger.
        DiskFullError: It cannot be written; whatever was there before still is.

    Source: flock(2), fcntl_locking(2), open(2) O_TMPFILE, link(2).
    """
    path = os.path.abspath(path)
    directory = new = -1
    try:
        directory = _open_directory(path)
        for _ in range(_ATTEMPTS):
            stale = _lock_stale(path, directory)
            if stale is None:  # somebody is between two steps: not running, and not stale yet
                time.sleep(_PAUSE_SECONDS)
                continue
            try:
                if new < 0:
                    # Before the stale one goes: on a full disk nothing is changed.
                    new = _make_file(path, directory, pid)
                if stale >= 0:
                    _remove_name(path, directory)
            finally:
                if stale >= 0:
                    os.close(stale)
            if _publish(new, path, directory):
                held, new = PidFile(new, path), -1
                return held
            os.close(new)  # its temporary name, if it had one, is used up
            new = -1
    except OSError as error:
        raise explain(error, f"cannot create the pid file {path}") from error
    finally:
        for fd in (directory, new):
            if fd >= 0:
                os.close(fd)
    message = f"cannot create the pid file {path}: its lock is held, but not by a service"
    raise errors.CannotCreateError(message, hint="find the process: fuser -v PATH, or lslocks")


def look_up_holder(path: str, owner: int | None = None) -> Holder | None:
    """Return who holds *path*, or None where no file is or nobody holds it; trusts *owner* too.

    Takes no lock where the kernel has marks, so it can never make a start fail.

    Raises:
        UnsafePathError: The file or its directory is under somebody else's control.
        PermissionRefusedError: This user may not read it.

    Source: fcntl_locking(2) F_OFD_GETLK.
    """
    fd = _open_to_look(path, owner)
    if fd is None:
        return None
    try:
        pid = _read_pid(fd) if file_lock.is_held(fd) else None
        # Asked twice: the pid is one that stood there while the lock was held.
        return Holder(pid=pid) if pid and file_lock.is_held(fd) else None
    finally:
        os.close(fd)


def read_stale_pid(path: str, owner: int | None = None) -> int | None:
    """Return the pid in a file that nobody holds, 0 if it holds none; None without one."""
    fd = _open_to_look(path, owner)
    if fd is None:
        return None
    try:
        return None if file_lock.is_held(fd) else _read_pid(fd) or 0
    finally:
        os.close(fd)


def take_pidfd(path: str, owner: int | None = None) -> tuple[int, int | None] | None:
    """Return the pid of the service that holds *path* and a pidfd of it, or None.

    The pidfd (None where the kernel has none) is the service's own: it is opened while the lock
    is held and the file names that pid, before and after, and the process has the file open, as far
    as this user may know: so whatever a service runs by exec must inherit the descriptor. The
    caller closes the pidfd.

    Raises what `look_up_holder` raises. Source: pidfd_open(2).
    """
    for _ in range(_ATTEMPTS):
        fd = _open_to_look(path, owner)
        if fd is None:
            return None
        try:
            pid = _read_pid(fd) if file_lock.is_held(fd) else None
            if pid is None:
                return None
            pidfd = _open_holder(fd, pid)
            if pidfd != -1:
                return pid, pidfd
            if file_lock.is_held(fd) and _read_pid(fd) == pid:
                return None  # held by others of the service; the process it names is gone
        finally:
            os.close(fd)
    return None


# -- the steps of acquire -------------------------------------------------------------------------


def _lock_stale(path: str, directory: int) -> int | None:
    """Return the stale file that has the name, locked; -1 if there is none; None to try again."""
    try:
        fd = os.open(os.path.basename(path), os.O_RDWR | _LOOK, dir_fd=directory)
    except FileNotFoundError:
        return -1
    except OSError as error:
        trust.refuse_special_file(error, _describe(path))
        raise
    try:
        trust.check_plain_file(os.fstat(fd), _describe(path))
        if file_lock.try_lock(fd):
            named = os.stat(os.path.basename(path), dir_fd=directory, follow_symlinks=False)
            if trust.is_same_file(fd, named):
                kept, fd = fd, -1
                return kept
            return None
        if file_lock.is_held(fd) and os.fstat(fd).st_nlink:
            pid = _read_pid(fd) or 0
            message = f"already running (pid {pid})"
            raise errors.AlreadyRunningError(message, pid=pid)
    except FileNotFoundError:
        return None  # taken away since it was opened
    finally:
        if fd >= 0:
            os.close(fd)
    return None


def _make_file(path: str, directory: int, pid: int) -> int:
    """Return a new file without its name yet: written, locked and marked."""
    fd = _open_nameless(path, directory)
    try:
        os.fchmod(fd, MODE)  # whatever the umask is: others may ask who runs
        os.write(fd, b"%d\n" % pid)
        _lock_new(fd)
    except OSError:
        _remove_temporary(fd, path, directory)
        os.close(fd)
        raise
    return fd


def _lock_new(fd: int) -> None:
    if not file_lock.try_lock(fd):
        raise OSError(errno.EAGAIN, "it cannot be locked, although nobody else has it")
    file_lock.mark(fd)


def _open_nameless(path: str, directory: int) -> int:
    if hasattr(os, "O_TMPFILE") and os.path.exists("/proc/self/fd"):
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, MODE, dir_fd=directory)
        except OSError as error:
            # The file system has none (EISDIR, ENOENT: a kernel that does not know them).
            if error.errno not in {*file_lock.UNKNOWN, errno.EISDIR, errno.ENOENT}:
                raise
    return open_temporary(path, directory)


def open_temporary(path: str, directory: int) -> int:
    """Create a named file where the file system has no nameless ones.

    Its name has this process's pid, so one that is there already was left by the dead.
    """
    temporary = _temporary_name(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, MODE, dir_fd=directory)
    except FileExistsError:
        os.unlink(temporary, dir_fd=directory)
        return os.open(temporary, flags, MODE, dir_fd=directory)


def _remove_name(path: str, directory: int) -> None:
    try:
        os.unlink(os.path.basename(path), dir_fd=directory)
    except FileNotFoundError:
        return  # removed by hand since


def _publish(fd: int, path: str, directory: int) -> bool:
    """Give *fd* the name, if nobody has it; return whether this was first."""
    nameless = os.fstat(fd).st_nlink == 0
    source = f"/proc/self/fd/{fd}" if nameless else _temporary_name(path)
    try:
        # With a directory descriptor it is linkat(2), which can follow the link in /proc.
        os.link(
            source,
            os.path.basename(path),
            src_dir_fd=None if nameless else directory,
            dst_dir_fd=directory,
            follow_symlinks=nameless,
        )
    except FileExistsError:
        return False
    finally:
        _remove_temporary(fd, path, directory)
    return True


def _remove_temporary(fd: int, path: str, directory: int) -> None:
    try:
        named = os.stat(_temporary_name(path), dir_fd=directory, follow_symlinks=False)
        if trust.is_same_file(fd, named):
            os.unlink(_temporary_name(path), dir_fd=directory)
    except OSError:
        return


# -- looking --------------------------------------------------------------------------------------


def _open_to_look(path: str, owner: int | None) -> int | None:
    directory = -1
    try:
        directory = _open_directory(path, owner)
        fd = os.open(os.path.basename(path), os.O_RDONLY | _LOOK, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        trust.refuse_special_file(error, _describe(path))
        message = f"cannot read the pid file {path}: {(error.strerror or str(error)).lower()}"
        raise errors.PermissionRefusedError(message) from error
    finally:
        if directory >= 0:
            os.close(directory)
    try:
        trust.check_plain_file(os.fstat(fd), _describe(path), owner)
    except errors.UnsafePathError:
        os.close(fd)
        raise
    return fd


def _open_holder(fd: int, pid: int) -> int | None:
    """Return a pidfd of *pid*, None where there are none; -1 if *pid* does not hold *fd*."""
    try:
        pidfd = children.open_pidfd(pid)
    except ProcessLookupError:
        return -1
    if _has_open(pid, fd) and file_lock.is_held(fd) and _read_pid(fd) == pid:
        return pidfd
    if pidfd is not None:
        os.close(pidfd)
    return -1


def _has_open(pid: int, fd: int) -> bool:
    """Return whether process *pid* has the file of *fd* open, as far as this user may know.

    The main process of a service may die and its pid be used again while a worker of it still
    holds the lock: then the file names a stranger.
    """
    links = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(links)
    except FileNotFoundError:
        return not os.path.exists("/proc/self/fd")  # without /proc nobody can know
    except OSError:
        return True  # not this user's to know, nor to signal
    for number in numbers:
        try:
            if trust.is_same_file(fd, os.stat(f"{links}/{number}")):
                return True
        except PermissionError:
            return True  # as above
        except OSError:
            continue  # closed since
    return False


def _read_pid(fd: int) -> int | None:
    """Return the pid in the first line, None if that is not one."""
    first = os.pread(fd, _PID_BYTES, 0).split(b"\n")[0]
    return int(first) if first.isdigit() and len(first) < _PID_BYTES else None


def _temporary_name(path: str) -> str:
    return f".{os.path.basename(path)}.{os.getpid()}"


def _open_directory(path: str, owner: int | None = None) -> int:
    return trust.open_private_directory(os.path.dirname(path) or ".", _describe(path), owner)


def _describe(path: str) -> str:
    return f"the pid file {path}"
