"""The pid file as the service has it: locked already, and its own to rewrite and to remove.

Apart from `pidfile`, which takes the lock: a service was handed it, and loads none of that.
"""

from __future__ import annotations

import errno
import os

from forkfirst import errors

_KINDS: dict[int, type[errors.ForkfirstError]] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), errors.DiskFullError),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM), errors.SystemRefusedError),
}


class PidFile:
    """A held lock: *fd* is the locked file, *path* its absolute name.

    It owns *fd*. A process that was handed the descriptor makes its own object.
    """

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def rewrite(self, pid: int) -> None:
        """Let the file name *pid*; who reads its first line at any moment sees a whole pid.

        Raises:
            DiskFullError: The file system is full; the file is as it was.
            OSError: The write failed otherwise.
        """
        text = b"%d\n" % pid
        try:
            # One write over the old text, then the rest cut off: never an empty file between.
            os.pwrite(self.fd, text, 0)
            os.ftruncate(self.fd, len(text))
        except OSError as error:
            raise explain(error, f"cannot write the pid file {self.path}") from error

    def release(self) -> bool:
        """Remove the file, if the name is still this file's, and give up this copy of the lock.

        The name goes first, while the lock is held: nobody can see the file unlocked. Returns
        whether it was removed; a service that dropped its privileges may not be allowed to, and
        what it leaves is a stale file, which the next start replaces.
        """
        if self.fd < 0:
            return False
        try:
            named = os.stat(self.path, follow_symlinks=False)
            if not os.path.samestat(os.fstat(self.fd), named):
                return False
            os.unlink(self.path)
        except OSError:
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Give up this copy of the lock, leaving the file; others may hold it still."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def explain(error: OSError, attempted: str) -> errors.ForkfirstError:
    """Return the error that says that what was *attempted* with a pid file failed with *error*."""
    return _KINDS.get(error.errno or 0, errors.CannotCreateError)(
        f"{attempted}: {(error.strerror or str(error)).lower()}"
    )
