"""A lock on a file that ends with its last holder, and that can be asked for without being taken.

It is two locks on one open file description. The *flock* keeps others out. The *mark*, an open file
description lock for writing, says that its holder means it: asking for it takes nothing, so an
observer disturbs nobody; and who takes only the flock, to see whether a file is stale, is not
mistaken for a holder.

Both belong to the open file description: every process inherits them through fork, a successor gets
them through SCM_RIGHTS, and they end with the last copy of the descriptor, however its process
ends. A lock of lockf(3) would be lost at the first fork.

Where there are no such marks (macOS, the BSDs, some sandboxes) there is only the flock: `is_held`
takes a shared one for an instant.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

# A kernel or a sandbox without what was asked for.
UNKNOWN = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
# struct flock with a 64-bit off_t, as Linux has it: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")
_SET_MARK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_GET_MARK: int | None = getattr(fcntl, "F_OFD_GETLK", None)


def try_lock(fd: int) -> bool:
    """Take the flock of the file of *fd*, without waiting; return whether it was free.

    Raises:
        OSError: The file system has no locks.

    Source: flock(2).
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def mark(fd: int) -> None:
    """Say that who has the flock of *fd* means to keep it; nothing where there are no marks.

    Raises:
        OSError: Somebody else has a lock of this kind on the file.

    Source: fcntl_locking(2) F_OFD_SETLK, Linux 3.15.
    """
    if _SET_MARK is None:
        return
    try:
        fcntl.fcntl(fd, _SET_MARK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise


def is_held(fd: int) -> bool:
    """Return whether the file of *fd* is locked and marked through another description than *fd*'s.

    Source: fcntl_locking(2) F_OFD_GETLK.
    """
    marked = _ask_mark(fd)
    if marked is not None:
        return marked
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _ask_mark(fd: int) -> bool | None:
    """Return whether the mark is held, or None where there are no marks."""
    if _GET_MARK is None:
        return None
    # Would a reader be refused? Only a writer's lock refuses one, and only who may write the file
    # can take that.
    asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    try:
        answer = fcntl.fcntl(fd, _GET_MARK, asked)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
        return None
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
