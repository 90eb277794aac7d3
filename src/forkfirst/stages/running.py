"""What runs under a name, and its end.

A process is only ever signalled through a handle that was taken while it held the service's lock.
When it is gone, its session is ended too, and waited for: a process that is still dying holds the
lock, the port and the files of the next one.
"""

from __future__ import annotations

import os
import signal
import time

from forkfirst import errors
from forkfirst.unix import children, pidfile
from forkfirst.values import Value

KILL_SECONDS = 5.0
"""How long a process may take to disappear after SIGKILL: only the kernel can hold it up."""


class Found(Value):
    """What a pid file shows.

    Attributes:
        pid: The process that it names; 0 if it names none.
        is_running: Whether the lock is held. If not, the process is dead and its file was left.
    """

    pid: int
    is_running: bool


class Ended(Value):
    """How a service ended.

    Attributes:
        pid: The process that was it.
        seconds: How long it had been given.
        killed: Whether it had to be killed.
        gone_before: Whether it had just ended by itself.
        left_behind: How many processes of its own it left, which were killed.
    """

    pid: int
    seconds: float
    killed: bool = False
    gone_before: bool = False
    left_behind: int = 0


def look_up(path: str, owner: int | None = None) -> Found | None:
    """Look at the pid file at *path*, of the user *owner* if it is not ours; None without one.

    Raises:
        UnsafePathError: The file or its directory is under somebody else's control.
        PermissionRefusedError: This user may not read it.
    """
    holder = pidfile.look_up_holder(path, owner)
    if holder is not None:
        return Found(pid=holder.pid, is_running=True)
    stale = pidfile.read_stale_pid(path, owner)
    return None if stale is None else Found(pid=stale, is_running=False)


class Running:
    """A process that holds the lock of a service, held by a handle: never another with its pid."""

    def __init__(self, pid: int, pidfd: int | None, path: str, owner: int | None = None) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._path = path
        self._owner = owner

    def end(self, name: str, *, seconds: float, session: int = 0) -> Ended:
        """Ask it to stop, kill it after *seconds*, and wait until it is gone.

        If a reload has made it another process meanwhile, that one as well.

        Args:
            name: The service, for the errors.
            seconds: How long it may take.
            session: The session that is the service's alone, whose other processes are then
                killed; or 0.

        Raises:
            PermissionRefusedError: It is another user's.
            StuckError: It is still there although it was killed.
        """
        own_session = session if session and session == self.read_session() else 0
        killed = False
        try:
            children.send_signal(self.pid, self._pidfd, signal.SIGTERM)
            if not children.wait_gone(self.pid, self._pidfd, seconds):
                killed = True
                children.send_signal(self.pid, self._pidfd, signal.SIGKILL)
                if not children.wait_gone(self.pid, self._pidfd, KILL_SECONDS):
                    message = (
                        f'cannot stop "{name}": pid {self.pid} is still there {KILL_SECONDS:g} s '
                        "after SIGKILL"
                    )
                    raise errors.StuckError(
                        message, hint="it waits in the kernel; see /proc/PID/stack, or dmesg"
                    )
        except PermissionError as error:
            message = f'cannot stop "{name}": pid {self.pid} belongs to another user'
            raise errors.PermissionRefusedError(message) from error
        except ProcessLookupError:
            return Ended(pid=self.pid, seconds=seconds, gone_before=True)
        finally:
            self.close()
        successor = self._find_successor(own_session) if own_session else None
        if successor is not None:
            return successor.end(name, seconds=seconds, session=session)
        left = end_session(own_session) if own_session else 0
        return Ended(pid=self.pid, seconds=seconds, killed=killed, left_behind=left)

    def close(self) -> None:
        """Let go of the handle; the process is not touched."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _find_successor(self, session: int) -> Running | None:
        """Return who has the lock by now, if it is a process of the same *session*."""
        found = take(self._path, self._owner)
        if found is None or (type(found) is Running and found.read_session() == session):
            return found
        found.close()
        return None

    def read_session(self) -> int:
        """Return the session that it is in, or 0 if it is gone."""
        try:
            return os.getsid(self.pid)
        except OSError:
            return 0


class Orphans(Running):
    """Processes that a service has left behind, which hold its lock although it is dead.

    A child that was forked and never executed anything else has inherited it.
    """

    def __init__(self, pid: int, path: str) -> None:
        super().__init__(pid, None, path)

    def end(self, name: str, *, seconds: float, session: int = 0) -> Ended:
        """Kill every process of *session*, if it is that of the dead service.

        Raises:
            ForkfirstError: It is not known to be.
        """
        members = children.list_session(session) if session else ()
        if not any(_has_open(pid, self._path) for pid in members):
            message = (
                f'cannot stop "{name}": pid {self.pid} is gone, and others hold its lock '
                f"{self._path}"
            )
            raise errors.ForkfirstError(message, hint="find them: fuser -v PATH, or lslocks")
        left = end_session(session)
        return Ended(pid=self.pid, seconds=seconds, gone_before=True, left_behind=left)


def take(path: str, owner: int | None = None) -> Running | None:
    """Return the process that holds the pid file at *path*, or None; see `look_up`.

    Raises:
        UnsafePathError: The file or its directory is under somebody else's control.
        PermissionRefusedError: This user may not read it.
    """
    while True:
        taken = pidfile.take_pidfd(path, owner)
        if taken is not None:
            return Running(*taken, path, owner)
        holder = pidfile.look_up_holder(path, owner)
        if holder is None:
            return None
        if not _is_there(holder.pid) or not _has_open(holder.pid, path):
            return Orphans(holder.pid, path)


def is_orphaned(path: str, owner: int | None = None) -> bool:
    """Return whether the pid file at *path* is held only by what a dead service left behind."""
    found = take(path, owner)
    if found is not None:
        found.close()
    return isinstance(found, Orphans)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _has_open(pid: int, path: str) -> bool:
    """Return whether the process *pid* is known to have the file at *path* open."""
    links = f"/proc/{pid}/fd"
    try:
        wanted = os.stat(path)
        numbers = os.listdir(links)
    except OSError:
        return False  # gone, or another user's
    for number in numbers:
        try:
            if os.path.samestat(os.stat(f"{links}/{number}"), wanted):
                return True
        except OSError:
            continue  # closed since
    return False


def remove_leftovers(path: str, control: str, owner: int | None) -> None:
    """Remove the pid file at *path* and the socket at *control* of a service that has not.

    It was killed, or had no right to, or no such path any more. *owner* is the user that it became.

    Raises:
        AlreadyRunningError: Somebody has started it again.
        ForkfirstError: The pid file is not this user's to remove.
    """
    from forkfirst.control.server import remove_socket  # noqa: PLC0415 - seldom needed

    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return
    # As whoever owns the directory, so that no link that is there leads anywhere else.
    changes = bool(owner) and os.geteuid() == 0 and os.stat(folder).st_uid == owner
    if changes:
        os.seteuid(owner or 0)
    try:
        # Whoever has the lock is the only one to start it, so nothing of a running one goes.
        held = pidfile.acquire(path, os.getpid())
        try:
            remove_socket(control)
        finally:
            held.release()
    finally:
        if changes:
            os.seteuid(0)


def end_session(sid: int, seconds: float = KILL_SECONDS) -> int:
    """Kill every process of the session *sid* but this one, and wait until they are gone.

    Returns how many there were. Those that are still there after *seconds* wait in the kernel, and
    go when that lets them. Without /proc it finds nobody.

    Source: setsid(2), pidfd_open(2).
    """
    deadline = time.monotonic() + seconds
    ended: set[int] = set()
    while (members := _list_members(sid)) and time.monotonic() < deadline:
        handles = _hold(members)
        signalled = children.end_session(sid, signal.SIGKILL)
        for pid, pidfd in handles.items():
            if pid in signalled:
                children.wait_gone(pid, pidfd, deadline - time.monotonic())
            if pidfd is not None:
                os.close(pidfd)
        if not signalled:
            break  # they are another user's by now
        ended.update(signalled)
    return len(ended)


def _list_members(sid: int) -> list[int]:
    return [pid for pid in children.list_session(sid) if pid != os.getpid()]


def _hold(pids: list[int]) -> dict[int, int | None]:
    """Return a handle of each of *pids* that is still there, for its end to be waited for."""
    handles: dict[int, int | None] = {}
    for pid in pids:
        try:
            handles[pid] = children.open_pidfd(pid)
        except OSError:
            continue  # gone, or no descriptor is left: then nobody waits for it
    return handles
