"""Whether a file can be trusted: who else could have put it there, or could change it.

Files are looked at through descriptors, and names are used relative to a checked directory, so
nobody can exchange one for another between the look and the use.
"""

from __future__ import annotations

import errno
import os
import stat

from forkfirst import errors

# To search a directory it is enough, where the system can say so.
_REACH = getattr(os, "O_PATH", os.O_RDONLY)


def is_ours(status: os.stat_result, owner: int | None = None) -> bool:
    """Return whether this user, root or the uid *owner*, who is trusted as well, owns it."""
    return status.st_uid in (0, os.geteuid(), owner)


def is_private(directory: os.stat_result, owner: int | None = None) -> bool:
    """Return whether only this user, root, *owner* or a group can put names into *directory*.

    A sticky bit does not make a world-writable directory private: it keeps others from removing a
    file, not from being there first.
    """
    return is_ours(directory, owner) and not directory.st_mode & stat.S_IWOTH


def is_same_file(fd: int, named: os.stat_result) -> bool:
    """Return whether *named* is the file that *fd* has open, not another of the same name."""
    return os.path.samestat(os.fstat(fd), named)


def open_private_directory(path: str, what: str, owner: int | None = None) -> int:
    """Return a descriptor of the directory *path*, for names to be used relative to it.

    Args:
        path: The directory.
        what: What is to be trusted to it, for the error: "the pid file /run/x.pid".
        owner: A uid that is trusted beside our own and root.

    Raises:
        UnsafePathError: Others could put names into it.
        OSError: It cannot be opened.

    Source: open(2) O_DIRECTORY, O_PATH.
    """
    fd = os.open(path, _REACH | os.O_DIRECTORY | os.O_CLOEXEC)
    status = os.fstat(fd)
    if is_private(status, owner):
        return fd
    os.close(fd)
    why = "is world-writable" if is_ours(status) else f"belongs to uid {status.st_uid}"
    message = f"cannot trust {what}: its directory {why}"
    raise errors.UnsafePathError(message)


def check_plain_file(status: os.stat_result, what: str, owner: int | None = None) -> None:
    """Accept a regular file of this user, root or *owner* that only its owner can write.

    Raises:
        UnsafePathError: It is anything else.
    """
    if not stat.S_ISREG(status.st_mode):
        why = "it is not a regular file"
    elif not is_ours(status, owner):
        why = f"it belongs to uid {status.st_uid}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = "others than its owner may write it"
    else:
        return
    message = f"cannot trust {what}: {why}"
    raise errors.UnsafePathError(message)


def refuse_special_file(error: OSError, what: str) -> None:
    """Raise if *error*, of an open with O_NOFOLLOW, came from what the file is; else return.

    Raises:
        UnsafePathError: It is a symbolic link, a directory or a socket.
    """
    if error.errno in (errno.ELOOP, errno.EMLINK):  # FreeBSD says EMLINK
        why = "it is a symbolic link"
    elif error.errno in (errno.EISDIR, errno.ENXIO):
        why = "it is not a regular file"
    else:
        return
    message = f"cannot trust {what}: {why}"
    raise errors.UnsafePathError(message) from error
