# ruff: noqa: SIM105
# Neither pathlib nor contextlib is imported before a fork.
"""The log: the file on descriptors 1 and 2, and Python's streams over it.

Invariants: a program never gets an error from writing to its log, a full disk included; what could
not be written is counted. A rotation loses no line: the old file stays on 1 and 2 until the new one
takes its place by dup2(2), and every write goes to one or the other.
"""

from __future__ import annotations

import _thread
import errno
import io
import os
import stat
import sys

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def open_log(path: str, mode: int = MODE) -> tuple[int, bool]:
    """Open *path* to append to, close-on-exec; return the descriptor and whether it is new.

    A new file has exactly *mode*, whatever the umask. Where others can put files (the directory is
    somebody else's, or world-writable), only a plain file of this user or root is accepted, so
    nobody can make the log grow elsewhere or read it; in a directory of one's own, anything is,
    /dev/stderr and a fifo with a reader included.

    Raises:
        UnsafePathError: It is a link or a file under somebody else's control.
        DiskFullError: No space or inode is left.
        CannotCreateError: It cannot be opened otherwise.

    Source: open(2) O_APPEND, O_NOFOLLOW.
    """
    from forkfirst.unix import trust  # noqa: PLC0415 - the service, which goes on in it, never asks

    try:
        trusted = trust.is_private(os.stat(os.path.dirname(path) or "."))
        fd, created = _open_or_create(path, mode, follow=trusted)
    except OSError as error:
        raise _explain(error, path) from error
    if created or trusted:
        return fd, created
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and trust.is_ours(status):
        return fd, created
    os.close(fd)
    message = f"cannot trust the log {path}: others may have put it there"
    raise errors.UnsafePathError(message)


class LogStream(io.RawIOBase):
    """What sys.stdout and sys.stderr sit on in a service: writes to *fd*, and never raises.

    No buffer of its own, and so no lock that a fork could leave taken.
    """

    def __init__(self, fd: int, log: Log) -> None:
        super().__init__()
        self.name = "<stdout>" if fd == 1 else "<stderr>"  # as the interpreter's own have it
        self._fd = fd
        self._log = log

    def fileno(self) -> int:
        """Return the descriptor, 1 or 2."""
        return self._fd

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of *data*, or count what could not be; return its length in any case."""
        view = memoryview(data).cast("B")
        rest = view
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            self._log.dropped_bytes += len(rest)
        self._log.rotate_if_full()
        return len(view)


class Log:
    """The log of a service: where it is, how large it gets, how many old ones stay.

    Attributes:
        path: The file; older ones are path.1 (the newest) to path.*keep*.
        max_bytes: Rotate when it is larger; 0 for never.
        keep: How many older files stay; with 0 the old file is removed.
        dropped_bytes: What could not be written since the start of this process.
    """

    def __init__(self, *, path: str, max_bytes: int = 0, keep: int = 5) -> None:
        self.path = os.path.abspath(path)
        self.max_bytes = max_bytes
        self.keep = keep
        self.dropped_bytes = 0
        self._limit = max_bytes
        self._rotating = False
        # Re-entrant, for the signal handler that logs while its own thread rotates. Not
        # threading.RLock, which is the same: `threading` costs an import before the fork.
        self._lock = _thread.RLock()

    def install(self) -> None:
        """Put line-buffered UTF-8 text streams over 1 and 2 in the place of stdout and stderr.

        1 and 2 must be on the log already. A character that UTF-8 has not is written as a
        backslash escape, never an error. Old streams are flushed, and closed by nobody.
        """
        for name, fd in (("stdout", 1), ("stderr", 2)):
            old = getattr(sys, name)
            if old is not None:
                try:
                    old.flush()
                except (OSError, ValueError):
                    pass  # what it held cannot be written any more
            stream = io.TextIOWrapper(
                LogStream(fd, self),
                encoding="utf-8",
                errors="backslashreplace",
                line_buffering=True,  # one write(2) for a line, so lines of processes do not mix
            )
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        # A thread may be rotating while another forks: the child would find the lock taken.
        os.register_at_fork(after_in_child=self._forget_lock)

    def rotate_at(self, max_bytes: int) -> None:
        """Rotate from now on when the log is larger than *max_bytes*; 0 for never."""
        self.max_bytes = self._limit = max_bytes

    def rotate(self) -> None:
        """Move the log to path.1, older ones up by one, and go on in a new file.

        Where the file was rotated by somebody else (logrotate, another process of the service),
        only reopens *path*. Any thread may call it. Does nothing where the log is not a regular
        file.

        Raises:
            CannotCreateError: The new file cannot be made; the old one stays in use.
            DiskFullError: The same, for want of space.

        Source: rename(2), dup2(2).
        """
        with self._lock:
            if self._rotating:
                return  # called by a signal handler of the thread that is at it
            self._rotating = True
            try:
                self._rotate()
            except OSError as error:
                raise _explain(error, self.path) from error
            finally:
                self._rotating = False

    def rotate_if_full(self) -> None:
        """Rotate if the log is larger than `max_bytes` and nobody is at it; never raises."""
        if self.max_bytes <= 0 or self._rotating:
            return
        try:
            size = os.fstat(1).st_size
            if size <= self._limit:
                return
            if not self._lock.acquire(blocking=False):
                return
        except OSError:
            return
        try:
            if os.fstat(1).st_size > self._limit:  # another thread may just have done it
                self.rotate()
            self._limit = self.max_bytes
        except (OSError, errors.ForkfirstError):
            # Not at every line again: when it has grown by as much once more.
            self._limit = size + self.max_bytes
        finally:
            self._lock.release()

    def _forget_lock(self) -> None:
        self._lock = _thread.RLock()
        self._rotating = False

    def _rotate(self) -> None:
        current = os.fstat(1)
        if not stat.S_ISREG(current.st_mode):
            return
        if not self._is_current(current):
            fd, _ = _open_or_create(self.path, stat.S_IMODE(current.st_mode), follow=True)
            _replace_output(fd)
            return
        fresh = f"{self.path}.new"
        # The new file first: if it cannot be made, nothing has changed.
        fd = _create_like(fresh, current)
        try:
            self._shift_older()
            if self.keep > 0:
                os.rename(self.path, f"{self.path}.1")
            os.rename(fresh, self.path)
        except OSError:
            os.close(fd)
            os.unlink(fresh)
            raise
        _replace_output(fd)

    def _is_current(self, status: os.stat_result) -> bool:
        """Return whether the path still names the file that is written to."""
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, status)

    def _shift_older(self) -> None:
        for number in range(self.keep - 1, 0, -1):
            try:
                os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            except FileNotFoundError:
                continue


def _open_or_create(path: str, mode: int, *, follow: bool) -> tuple[int, bool]:
    flags = _FLAGS | (0 if follow else os.O_NOFOLLOW)
    while True:
        try:
            return _create(path, mode), True
        except FileExistsError:
            pass
        try:
            # Not to wait for the reader of a fifo: without one this is ENXIO.
            fd = os.open(path, flags | os.O_NONBLOCK)
        except FileNotFoundError:
            if os.path.islink(path):
                raise  # a link to nothing; else it was removed just now
            continue
        os.set_blocking(fd, True)
        return fd, False


def _create(path: str, mode: int) -> int:
    fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.fchmod(fd, mode)  # exactly, whatever the umask is
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def _create_like(path: str, model: os.stat_result) -> int:
    """Create *path* with the mode and, where that is allowed, the owner of *model*."""
    try:
        os.unlink(path)  # left by a process that died while it rotated
    except FileNotFoundError:
        pass
    fd = _create(path, stat.S_IMODE(model.st_mode))
    try:
        os.fchown(fd, model.st_uid, model.st_gid)
    except OSError:
        pass  # not root: it is this user's then
    return fd


def _replace_output(fd: int) -> None:
    for target in (1, 2):
        os.dup2(fd, target, inheritable=True)
    os.close(fd)


def _explain(error: OSError, path: str) -> errors.ForkfirstError:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return errors.UnsafePathError(f"cannot trust the log {path}: it is a symbolic link")
    message = f"cannot open the log {path}: {(error.strerror or str(error)).lower()}"
    if error.errno in _EXHAUSTED:
        return errors.SystemRefusedError(message)
    kind = errors.DiskFullError if error.errno in _FULL else errors.CannotCreateError
    return kind(message)
