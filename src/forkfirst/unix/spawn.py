"""Starting a program in a new process without a fork of this one, with descriptors where it wants.

posix_spawn(3) goes from here to the new program with no code of ours in between. So it is safe
where a fork is not: with threads, with a loop. The price is that what only code in the new process
could do cannot be had: its own pid in its environment, a signal at its parent's death.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

_OWN_BEHAVIOUR = tuple(
    getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)
)
"""What Python ignores for itself, from its start on; no program expects to inherit it."""


def find_program(name: str) -> str:
    """Return the path of the program called *name*, as a shell would find it.

    Raises:
        TargetError: There is none.
        PermissionRefusedError: There is one, and this user may not execute it.

    Source: environ(7), PATH.
    """
    folders = [""] if os.sep in name else os.get_exec_path()
    paths = [f"{one}{os.sep}{name}" if one else name for one in folders]
    there = [path for path in paths if os.access(path, os.F_OK) and not _is_directory(path)]
    for path in there:
        if os.access(path, os.X_OK):
            return path
    if there:
        message = f"{there[0]} is not executable"
        raise errors.PermissionRefusedError(message, hint=f"chmod +x {there[0]}")
    message = f"there is no command {name!r}"
    raise errors.TargetError(message, hint="" if os.sep in name else "it is not on PATH")


def spawn(  # noqa: PLR0913 - what posix_spawn(3) has attributes for
    argv: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Mapping[int, int],
    *,
    still_ignored: Iterable[int] = (),
    own_group: bool = False,
    own_session: bool = False,
) -> int:
    """Execute *argv* in a new process, and return its pid. The caller must wait for it.

    It starts with no signal blocked, and each at its default action but those *still_ignored*. It
    has the descriptors of this process that are not close-on-exec, and *descriptors*: number there
    to number here. O_NONBLOCK, which belongs to the open file that both share, is left as it is.

    Args:
        argv: The program's path and its arguments.
        environment: The whole environment.
        descriptors: What it shall have, and where; 0, 1 and 2 may be among them.
        still_ignored: Signals that it shall ignore, if this process does.
        own_group: Whether it leads a process group of its own, which a terminal does not reach.
        own_session: Whether it leads a session of its own. Where posix_spawn(3) has no way to say
            so (POSIX_SPAWN_SETSID), it does not yet, and must call setsid(2) itself.

    Raises:
        TargetError: The file is no program of this machine, or its interpreter is not there.
        PermissionRefusedError: This user may not execute it.
        SystemRefusedError: No processes, no memory.

    Source: posix_spawn(3), environ(7).
    """
    # Lifted above all places first: else one descriptor's place may be another's number.
    floor = max(descriptors, default=0) + 1
    kept = frozenset(still_ignored)
    options: dict[str, Any] = {"setpgroup": 0} if own_group else {}
    if own_session:
        options["setsid"] = True
    lifted: dict[int, int] = {}
    try:
        for at, fd in descriptors.items():
            lifted[at] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)
        options["file_actions"] = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in lifted.items()]
        options["setsigmask"] = ()
        options["setsigdef"] = [number for number in list_ignored() if number not in kept]
        return _execute(argv, environment, options)
    except OSError as error:
        raise make_refusal(argv[0], error) from error
    finally:
        for fd in lifted.values():
            os.close(fd)


def place_descriptors(fds: Sequence[int], first: int) -> None:
    """Make *fds* the descriptors *first*, *first* + 1, … of this process, for an exec to keep.

    What was open at those numbers is closed, and so are *fds* where they were. O_NONBLOCK is left
    as it is. If it fails, some may be in their places already: end the process.

    Raises:
        OSError: No descriptors are left.

    Source: dup2(2).
    """
    floor = max((first + len(fds) - 1, *fds), default=first) + 1
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor) for fd in fds]
    for fd in set(fds):
        os.close(fd)
    for index, fd in enumerate(lifted):
        os.dup2(fd, first + index)
        os.close(fd)


def restore_own_behaviour() -> None:
    """Give the signals that Python ignores for itself their default action, before an exec.

    Whatever else is ignored was so by the wish of who started this process (nohup(1), say), and a
    program that only replaces another hands that on.

    Source: signal(7): an ignored signal stays ignored through execve(2).
    """
    for number in _OWN_BEHAVIOUR:
        signal.signal(number, signal.SIG_DFL)


def list_ignored() -> list[int]:
    """Return the signals that this process ignores, as far as Python knows."""
    return [
        number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN
    ]


def list_inherited_ignored() -> list[int]:
    """Return the signals that this process ignores and Python does not ignore of itself.

    Call it before this process ignores any.
    """
    return [number for number in list_ignored() if number not in _OWN_BEHAVIOUR]


def make_refusal(path: str, error: OSError) -> errors.ForkfirstError:
    """Say why the program at *path* could not be executed."""
    reason = (error.strerror or str(error)).lower()
    message = f"{path} cannot be executed: {reason}"
    if error.errno in {errno.ENOEXEC, errno.ENOENT}:
        hint = "it needs a first line that begins with #!, naming a program that is there"
        return errors.TargetError(message, hint=hint)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return errors.PermissionRefusedError(message)
    if error.errno == errno.E2BIG:
        return errors.UsageError(message)
    return errors.SystemRefusedError(message)


def _execute(argv: Sequence[str], environment: Mapping[str, str], options: Any) -> int:
    try:
        return os.posix_spawn(argv[0], tuple(argv), environment, **options)
    except NotImplementedError:  # said before anything was done: no POSIX_SPAWN_SETSID here
        del options["setsid"]
        return os.posix_spawn(argv[0], tuple(argv), environment, **options)


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.stat(path).st_mode)
