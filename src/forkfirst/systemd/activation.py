"""Socket activation: the descriptors that a service manager passed to this process.

The rules are libsystemd's, and where it refuses, this refuses: a number that is not one, names that
do not match the count, a descriptor that is closed. Descriptors that are meant for another process
are not an error; there are just none for us. `systemfd` may put its sockets elsewhere than at 3 and
says so in LISTEN_FDS_FIRST_FD, which libsystemd does not know; that is understood too.

What the descriptors are, and the giving out of them, is in `listeners`.
"""

from __future__ import annotations

import errno
import os
import sys

from forkfirst import errors
from forkfirst.systemd.integers import parse_integer, parse_pid
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_FD = 3
VARIABLES = (
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_FDS_FIRST_FD",
)
_GREATEST_FD = 2**31 - 1
# `fs.nr_open` as the kernel sets it: no process has more. Without a bound, LISTEN_FDS=2147483644
# would ask for two thousand million values before the first of them is found to be closed.
_MOST_PASSED = 2**20


class Passed(Value):
    """One descriptor that was passed to this process.

    Attributes:
        fd: The descriptor. It is not owned by this value.
        name: What the sender calls it; several may have one name, and a name may be empty. It is
            "unknown" where no names were sent, "stored" for one that this service stored without
            a name, and "connection" for the connection of an `Accept=yes` unit.
        index: Its place, from 0.
    """

    fd: int
    name: str
    index: int


def read_passed(
    environ: Mapping[str, str],
    pid: int,
    pidfd_id: int | None,
    *,
    unaddressed: bool = False,
) -> tuple[Passed, ...]:
    """Read from *environ* what was passed to the process *pid*; () if it is not for that process.

    Does not look at the descriptors, and changes nothing.

    Args:
        environ: Where the LISTEN_* variables are.
        pid: Whom they must be addressed to.
        pidfd_id: What `own_pidfd_id` says of *pid*; None skips the check of LISTEN_PIDFDID.
        unaddressed: Accept them also without LISTEN_PID, as `systemfd --no-pid` sends them.
            libsystemd does not: they may be left over from any ancestor.

    Raises:
        ConfigError: A variable is malformed; the text says which.

    Source: sd_listen_fds_with_names(3).
    """
    first, names = _read_span(environ, pid, pidfd_id, unaddressed=unaddressed)
    return tuple(
        Passed(fd=first + index, name=name, index=index) for index, name in enumerate(names)
    )


def take_environment(*, unaddressed: bool = False) -> tuple[Passed, ...]:
    """Read what was passed to this process, once, and make sure that no child inherits it.

    Every descriptor gets its close-on-exec flag, and every LISTEN_* variable is removed, also if
    this fails. Without those variables there is nothing to do, and () is returned. Does not close
    a descriptor, not even one that is meant for another process.

    Raises:
        UsageError: Threads are running, so the environment and the descriptors may be in use;
            nothing was changed.
        ConfigError: A variable is malformed, or a descriptor that it counts is closed.

    Source: sd_listen_fds_with_names(3), with `unset_environment` set.
    """
    environ = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if not environ:
        return ()
    threads = count_threads()
    if threads > 1:
        message = f"cannot take the passed descriptors: {threads} threads are running"
        raise errors.UsageError(message, hint="take them first, before anything starts a thread")
    try:
        pidfd_id = own_pidfd_id() if "LISTEN_PIDFDID" in environ else None
        first, names = _read_span(environ, os.getpid(), pidfd_id, unaddressed=unaddressed)
        for fd in range(first, first + len(names)):
            _close_on_exec(fd, len(names))
    finally:
        for name in environ:
            del os.environ[name]
    return tuple(
        Passed(fd=first + index, name=name, index=index) for index, name in enumerate(names)
    )


def own_pidfd_id() -> int | None:
    """Return the number that tells this process from every other since boot, or None.

    It is the inode of a pidfd, which unlike a pid is never used again. None is returned where that
    is not so: before Linux 6.9, on 32-bit machines (where the inode is cut), and elsewhere.

    Source: pidfd_open(2), sd_pidfd_get_inode_id(3).
    """
    if not hasattr(os, "pidfd_open") or sys.maxsize < 2**32:
        return None
    try:
        own = os.pidfd_open(os.getpid())
    except OSError:
        return None  # a kernel before 5.3, or a system call filter
    try:
        # Before 6.9 all pidfds shared the one inode that eventfds still share.
        other = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            status = os.fstat(own)
            return None if status.st_dev == os.fstat(other).st_dev else status.st_ino
        finally:
            os.close(other)
    finally:
        os.close(own)


def count_threads() -> int:
    """Return how many threads this process has, those of native code included.

    Without a /proc, only the threads that Python knows of are counted.

    Source: proc(5), /proc/self/task.
    """
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        threading = sys.modules.get("threading")  # not imported: then Python started none
        return threading.active_count() if threading else 1


def _read_span(
    environ: Mapping[str, str], pid: int, pidfd_id: int | None, *, unaddressed: bool
) -> tuple[int, tuple[str, ...]]:
    """Return the first descriptor and the names, in libsystemd's order of checks."""
    names = _read_names(environ.get("LISTEN_FDNAMES"))
    if not _is_for(environ, pid, pidfd_id, unaddressed=unaddressed):
        return FIRST_FD, ()
    text = environ.get("LISTEN_FDS")
    if text is None:
        return FIRST_FD, ()
    first = _read_first(environ.get("LISTEN_FDS_FIRST_FD"))
    most = _GREATEST_FD - first
    count = parse_integer(text, 1, most)
    if count is None:
        raise _malformed(text, "LISTEN_FDS", f"is not a number from 1 to {most}")
    if count > _MOST_PASSED:
        raise _malformed(text, "LISTEN_FDS", "is more descriptors than a process can have")
    if names is None:
        return first, ("unknown",) * count
    if len(names) != count:
        said = environ["LISTEN_FDNAMES"]
        raise _malformed(said, "LISTEN_FDNAMES", f"is {len(names)} names for {count} descriptors")
    return first, names


def _is_for(
    environ: Mapping[str, str], pid: int, pidfd_id: int | None, *, unaddressed: bool
) -> bool:
    text = environ.get("LISTEN_PID")
    if text is None:
        return unaddressed
    addressee = parse_pid(text)
    if addressee is None:
        raise _malformed(text, "LISTEN_PID", "is not a process id")
    if addressee != pid:
        return False
    text = environ.get("LISTEN_PIDFDID")
    if text is None:
        return True
    said = parse_integer(text, 0, 2**64 - 1)
    if said is None:
        raise _malformed(text, "LISTEN_PIDFDID", "is not a number of 64 bits")
    return pidfd_id is None or said == pidfd_id


def _read_names(text: str | None) -> tuple[str, ...] | None:
    """Split at each colon; a backslash takes the next character as it is, as libsystemd does."""
    if text is None:
        return None
    names = [""]
    characters = iter(text)
    for character in characters:
        if character == ":":
            names.append("")
        elif character != "\\":
            names[-1] += character
        else:
            following = next(characters, None)
            if following is None:
                raise _malformed(text, "LISTEN_FDNAMES", "ends in a backslash")
            names[-1] += following
    return tuple(names)


def _read_first(text: str | None) -> int:
    if text is None:
        return FIRST_FD
    first = parse_integer(text, FIRST_FD, _GREATEST_FD - 1)
    if first is None:
        raise _malformed(text, "LISTEN_FDS_FIRST_FD", "is not a descriptor from 3 on")
    return first


def _close_on_exec(fd: int, count: int) -> None:
    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the call has no name for it
    except OSError as error:
        reason = "closed" if error.errno == errno.EBADF else (error.strerror or "").lower()
        message = f"cannot take the passed descriptors: LISTEN_FDS is {count}, but {fd} is {reason}"
        raise errors.ConfigError(message) from error


def _malformed(text: str, variable: str, why: str) -> errors.ConfigError:
    shown = text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 - a message, not a dump
    return errors.ConfigError(f"cannot take the passed descriptors: {variable}={shown!r} {why}")
