"""Which changed file is no edit but what the command itself writes: a log, a database, its output.

To start a command anew for what it has just written would never end.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def is_written_by(path: str, pids: Iterable[int]) -> bool:
    """Return whether this process, or one of *pids*, has *path* open for writing just now.

    Without /proc only the standard output and error of this process are known.

    Source: proc_pid_fd(5), proc_pid_fdinfo(5).
    """
    try:
        wanted = os.stat(path)
    except OSError:
        return False
    if not stat.S_ISREG(wanted.st_mode):
        return False
    return _is_own_stream(wanted) or any(_has_open(pid, wanted) for pid in pids)


def _is_own_stream(wanted: os.stat_result) -> bool:
    for fd in (1, 2):
        try:
            if os.path.samestat(os.fstat(fd), wanted):
                return True
        except OSError:
            continue
    return False


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False  # gone, another user's, or no /proc
    for fd in fds:
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), wanted) and _is_for_writing(
                pid, fd
            ):
                return True
        except OSError:
            continue  # closed meanwhile
    return False


def _is_for_writing(pid: int, fd: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
