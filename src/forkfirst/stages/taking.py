"""Taking steps: each by its function in a table, and what is said of one that fails."""

from __future__ import annotations

import errno

from forkfirst import errors
from forkfirst.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Table = Mapping[type[steps.Step], Callable[[Any, Any], None]]

NO_DESCRIPTOR = -1

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXHAUSTED = (errno.EAGAIN, errno.ENOMEM)


def apply_steps(chosen: Iterable[steps.Step], state: object, table: Table) -> None:
    """Take each step of *chosen*, in order.

    Raises:
        ForkfirstError: A step failed; the text names the step and what it was about.
    """
    for step in chosen:
        try:
            table[type(step)](step, state)
        except (OSError, ImportError) as error:
            raise explain_refusal(step, error) from error


def explain_refusal(step: steps.Step, error: OSError | ImportError) -> errors.ForkfirstError:
    """Return the error that says that *step* failed with *error*."""
    named = isinstance(error, OSError) and error.filename in step
    forks = isinstance(step, steps.Fork | steps.ForkAgain)
    attempted = "fork" if forks else step.describe().partition(";")[0]
    return explain(attempted, error, named=named, forks=forks)


def explain(
    attempted: str, error: OSError | ImportError, *, named: bool = False, forks: bool = False
) -> errors.ForkfirstError:
    """Return the error that says that what was *attempted* failed with *error*.

    An ImportError is what a module makes of an OSError that it met while it was loaded: no
    descriptor was left, say.

    Args:
        attempted: What was, without "cannot".
        error: Why it failed.
        named: Whether the file of *error* is in *attempted* already.
        forks: Whether it was a fork.
    """
    if isinstance(error, ImportError):
        return errors.SystemRefusedError(f"cannot {attempted}: {error}")
    where = f" ({error.filename})" if error.filename and not named else ""
    message = f"cannot {attempted}: {(error.strerror or str(error)).lower()}{where}"
    if error.errno in _FULL:
        return errors.DiskFullError(message, hint="free some space, or choose another place")
    if error.errno in (errno.EACCES, errno.EPERM):
        return errors.PermissionRefusedError(message)
    if error.errno in (errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR):
        return errors.CannotCreateError(message)
    if error.errno == errno.ENOENT:
        return errors.ConfigError(message)
    hint = ""
    if error.errno in _EXHAUSTED and forks:
        hint = "the limit of processes (ulimit -u, pids.max) or the memory is used up"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "the limit of open descriptors (ulimit -n) is used up"
    return errors.SystemRefusedError(message, hint=hint)


def report_refusal(report_to: int, error: errors.ForkfirstError) -> None:
    """Tell the launcher that a step failed; if it is gone, there is nobody to tell."""
    from forkfirst.unix import channel  # noqa: PLC0415 - only where somebody waits for a report

    try:
        channel.send(
            report_to,
            "refused",
            message=str(error),
            hint=error.hint,
            exit_status=error.exit_status,
        )
    except BrokenPipeError:
        return
