"""Forking, leaving, and the session that a service lives in.

Invariant: what the standard streams held at the moment of a fork is written exactly once. It is
flushed before the fork, and a process that only hands over ends by `leave`, which flushes nothing.
"""

from __future__ import annotations

import os

from forkfirst.unix import stdio
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Fork(Value):
    """Which side of a fork this is: in the parent `pid` is the child's, in the child it is 0."""

    pid: int

    @property
    def is_parent(self) -> bool:
        """Whether this is the process that forked."""
        return self.pid > 0

    @property
    def is_child(self) -> bool:
        """Whether this is the new process."""
        return self.pid == 0

    @property
    def child_pid(self) -> int | None:
        """The child's pid in the parent, None in the child."""
        return self.pid or None


def fork() -> int:
    """Flush stdout and stderr, and fork: return the child's pid in the parent, 0 in the child.

    Does not look for threads, loops or locks: that is the guard's part.

    Raises:
        OSError: The kernel refused: EAGAIN (a limit on processes), ENOMEM.

    Source: fork(2).
    """
    stdio.flush_standard_streams()
    return os.fork()


def start_session() -> int:
    """Become the leader of a new session and process group without a terminal; return its id.

    Raises:
        PermissionError: This process leads a process group already.

    Source: setsid(2).
    """
    os.setsid()
    return os.getpid()


setsid = start_session


def leave(status: int) -> NoReturn:
    """End this process at once with *status*: no handler runs, no buffer is written.

    For a process that shares its buffers, exit handlers and temporary files with the one that goes
    on: `sys.exit` would do all of it a second time.

    Source: _exit(2).
    """
    os._exit(status)
