"""Which step the kernel refused, why, and what that exits with."""

from __future__ import annotations

import errno

from forkfirst import errors
from forkfirst.plan import steps

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXHAUSTED = (errno.EAGAIN, errno.ENOMEM)


def explain(step: steps.Step, error: OSError) -> errors.ForkfirstError:
    """Return the error that says that *step* failed with *error*."""
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
    if error.errno in _EXHAUSTED and isinstance(step, steps.Fork | steps.ForkAgain):
        hint = "the limit of processes (ulimit -u, pids.max) or the memory is used up"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "the limit of open descriptors (ulimit -n) is used up"
    return errors.SystemRefusedError(message, hint=hint)
