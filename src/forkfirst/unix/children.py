"""Waiting for processes, signalling them, and finding those of a session.

A pid is a number that the kernel gives to somebody else some time after its process is gone. A
pidfd is the process itself: where there is one, it is what signals go through.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_SECONDS = 0.01  # without a pidfd: how often to look whether a process is gone
_SESSION_PASSES = 16  # a session that forks faster than it is signalled is not chased for ever


def waitpid(pid: int) -> int:
    """Wait until the child *pid* ends, and return its raw status, as wait(2) has it.

    A signal does not interrupt it, unless its Python handler raises (PEP 475).

    Raises:
        ChildProcessError: It is no child of this process, or was waited for before.

    Source: waitpid(2).
    """
    return os.waitpid(pid, 0)[1]


def waitpid_nohang(pid: int) -> int | None:
    """Return the raw status of the child *pid*, or None while it runs.

    Raises:
        ChildProcessError: It is no child of this process, or was waited for before.

    Source: waitpid(2) WNOHANG.
    """
    found, raw = os.waitpid(pid, os.WNOHANG)
    return raw if found else None


def peek(pid: int) -> int | None:
    """Return the raw status of the child *pid* if it has ended, and leave it to be waited for.

    As long as it is not, neither its pid nor its process group can become anybody else's. Call it
    only where there is an `os.waitid`.

    Raises:
        ChildProcessError: It is no child of this process, or was waited for before.

    Source: waitid(2) WNOWAIT.
    """
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return found.si_status << 8
    core = 0x80 if found.si_code == os.CLD_DUMPED else 0
    return found.si_status | core


def read_stop(pid: int) -> int:
    """Return the signal that stopped the child *pid* since the last call, or 0.

    Always 0 where there is no waitid(2), as on macOS before Python 3.13.

    Source: waitid(2) WSTOPPED.
    """
    if not hasattr(os, "waitid"):
        return 0
    found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
    return 0 if found is None else found.si_status


def reap_all() -> list[tuple[int, int]]:
    """Take every child that has ended, without waiting: its pid and its raw status.

    Source: waitpid(2) WNOHANG.
    """
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, raw))


def exit_status(raw: int) -> int:
    """Return the status a shell shows for *raw*: the process's own, or 128 + its signal."""
    if os.WIFSIGNALED(raw):
        return 128 + os.WTERMSIG(raw)
    return os.WEXITSTATUS(raw)


def describe_status(raw: int) -> str:
    """Say what *raw* means: "exited with status 3", "was killed by SIGKILL"."""
    if os.WIFSIGNALED(raw):
        core = " (core dumped)" if os.WCOREDUMP(raw) else ""
        return f"was killed by {describe_signal(os.WTERMSIG(raw))}{core}"
    if os.WIFSTOPPED(raw):
        return f"was stopped by {describe_signal(os.WSTOPSIG(raw))}"
    return f"exited with status {os.WEXITSTATUS(raw)}"


def describe_signal(number: int) -> str:
    """Return the name of a signal: "SIGTERM", "SIGRTMIN+3", or "signal 99" if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first, last = getattr(signal, "SIGRTMIN", 1), getattr(signal, "SIGRTMAX", 0)
        return f"SIGRTMIN+{number - first}" if first < number < last else f"signal {number}"


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor, close-on-exec, for the process *pid*; None where there are none.

    Raises:
        ProcessLookupError: There is no such process.
        OSError: No descriptors are left.

    Source: pidfd_open(2), Linux 5.3.
    """
    _check_pid(pid)
    if hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            # A kernel that has none, or a sandbox that forbids them: go on without.
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
    try:
        os.kill(pid, 0)
    except PermissionError:
        return None  # somebody else's, but there
    return None


def send_signal(pid: int, pidfd: int | None, number: int) -> None:
    """Send signal *number* through *pidfd*, or without one to *pid*.

    Raises:
        ProcessLookupError: It is gone.
        PermissionError: It is not this user's.
        ValueError: *pid* is 0 or negative: kill(2) would signal a group, or everybody.

    Source: pidfd_send_signal(2), kill(2).
    """
    _check_pid(pid)
    if pidfd is None:
        os.kill(pid, number)
    else:
        signal.pidfd_send_signal(pidfd, number)


def wait_gone(pid: int, pidfd: int | None, seconds: float) -> bool:
    """Wait until the process has ended, at most *seconds*; return whether it has.

    Ended means that it runs no more; a child of this process has still to be reaped. Without a
    pidfd it looks every 10 ms.

    Source: pidfd_open(2): a pidfd becomes readable when its process ends.
    """
    if pidfd is not None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))
    deadline = time.monotonic() + seconds
    while not _is_gone(pid):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(_POLL_SECONDS, left))
    return True


def list_session(sid: int) -> tuple[int, ...]:
    """Return the pids of the session *sid* that still run; empty where there is no /proc.

    A zombie does not count: nothing of it runs, and only its parent can take it away.

    Source: proc_pid_stat(5).
    """
    return tuple(sorted(pid for pid in _list_pids() if _read_session(pid) == sid))


def list_group(pgid: int) -> tuple[int, ...]:
    """Return the pids of the process group *pgid* that still run; empty where there is no /proc.

    Source: proc_pid_stat(5).
    """
    return tuple(sorted(pid for pid in _list_pids() if _read_group(pid) == pgid))


def end_session(sid: int, number: int) -> tuple[int, ...]:
    """Send signal *number* once to every process of the session *sid*, never to itself.

    Processes that are forked meanwhile are found too. Each is held by a pidfd before it is checked
    to be of the session, so a reused pid is not signalled. Returns the pids that were signalled.

    Does not wait for them to end. Without /proc it finds nobody.

    Source: setsid(2), pidfd_send_signal(2).
    """
    signalled: list[int] = []
    for _ in range(_SESSION_PASSES):
        new = [pid for pid in list_session(sid) if pid not in signalled and pid != os.getpid()]
        reached = [pid for pid in new if _signal_member(pid, sid, number)]
        signalled += reached
        if not reached:
            break
    return tuple(signalled)


def _signal_member(pid: int, sid: int, number: int) -> bool:
    try:
        pidfd = open_pidfd(pid)
    except OSError:
        return False
    try:
        if _read_session(pid) != sid:
            return False
        send_signal(pid, pidfd, number)
    except OSError:
        return False
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def _list_pids() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            yield int(name)


def _read_stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on: state, parent, group, session."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    # The name is the program's own choice and may hold spaces and ")": the last one ends it.
    return text[text.rfind(b")") + 2 :].split()


def _read_session(pid: int) -> int | None:
    """Return the session of a process that runs, None for a zombie and for none at all."""
    fields = _read_stat(pid)
    return None if fields is None or _is_zombie(fields) else int(fields[3])


def _read_group(pid: int) -> int | None:
    """Return the process group of a process that runs, None for a zombie and for none at all."""
    fields = _read_stat(pid)
    return None if fields is None or _is_zombie(fields) else int(fields[2])


def _is_zombie(fields: list[bytes]) -> bool:
    # A leader that has left while its threads go on is shown as Z too: count the threads.
    return fields[0] in (b"Z", b"X") and int(fields[17]) <= 1


def _is_gone(pid: int) -> bool:
    fields = _read_stat(pid)
    if fields is not None:
        return _is_zombie(fields)
    if hasattr(os, "waitid"):
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, pid, options) is not None
        except ChildProcessError:
            pass  # not ours: ask whether there is one
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _check_pid(pid: int) -> None:
    if pid <= 0:
        message = f"{pid} is not the pid of one process"
        raise ValueError(message)
