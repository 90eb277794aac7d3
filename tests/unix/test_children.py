"""Waiting for processes, signalling them, and finding those of a session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from forkfirst.unix import children
from support.fresh import run_fresh

SLEEPER = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
by_pidfd = pytest.mark.parametrize("with_pidfd", [True, False])


@pytest.mark.parametrize("status", [0, 1, 2, 42, 100, 127, 255])
def test_a_status_is_told_as_it_was(status: int) -> None:
    """The raw status is not the exit status: 1 is 256."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {status}"], {})
    raw = children.waitpid(pid)
    assert children.exit_status(raw) == status
    assert children.describe_status(raw) == f"exited with status {status}"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_a_death_by_signal_is_told_as_a_shell_does(number: signal.Signals) -> None:
    """128 + n is what every other tool shows."""
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as process:
        children.send_signal(process.pid, None, number)
        raw = children.waitpid(process.pid)
        process.returncode = -number  # reaped behind its back
    assert children.exit_status(raw) == 128 + number
    assert children.describe_status(raw) == f"was killed by {number.name}"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (signal.SIGSEGV | 0x80, "was killed by SIGSEGV (core dumped)"),
        (signal.SIGTSTP << 8 | 0x7F, "was stopped by SIGTSTP"),
        (int(signal.SIGRTMIN) + 3, "was killed by SIGRTMIN+3"),
        (int(signal.SIGRTMIN), "was killed by SIGRTMIN"),
        (33, "was killed by signal 33"),
    ],
)
def test_every_kind_of_status_has_words(raw: int, text: str) -> None:
    """Real-time signals have no names of their own in Python, and 32 and 33 none at all."""
    assert children.describe_status(int(raw)) == text


def test_a_signal_does_not_end_the_wait() -> None:
    """The launcher handles SIGINT and SIGWINCH while it waits; the status comes all the same."""
    outcome = run_fresh("""
import signal
from forkfirst.unix import children, session
answer, said = os.pipe()
def handle(number, frame):
    inside = frame.f_code is children.waitpid.__code__
    os.write(said, b"inside" if inside else b"before")
signal.signal(signal.SIGUSR1, handle)
parent, at = os.pidfd_open(os.getpid()), b"before"  # whoever is the parent later is not meant
pid = session.fork()
if pid == 0:
    os.close(said)  # so that the end of the parent is heard
    try:
        for _ in range(100_000):  # until one has come while the parent was inside
            signal.pidfd_send_signal(parent, signal.SIGUSR1)
            at = os.read(answer, 6)
            if at != b"before":
                break
    finally:
        session.leave(7 if at == b"inside" else 1)
tell(status=children.exit_status(children.waitpid(pid)))
""")
    assert outcome.told == [{"status": 7}], outcome.err


def test_a_child_is_waited_for_once() -> None:
    """A second wait would take the status of a process that got the pid since."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    children.waitpid(pid)
    with pytest.raises(ChildProcessError):
        children.waitpid(pid)
    with pytest.raises(ChildProcessError):
        children.waitpid_nohang(pid)


def test_not_waiting_says_none_while_it_runs() -> None:
    """None is not a status: 0 is, of a process that went well."""
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as process:
        assert children.waitpid_nohang(process.pid) is None
        assert process.stdin is not None
        process.stdin.close()
        assert children.wait_gone(process.pid, None, 30)
        assert children.waitpid_nohang(process.pid) == 0
        process.returncode = 0


@by_pidfd
def test_gone_means_that_nothing_of_it_runs(*, with_pidfd: bool) -> None:
    """A zombie is gone: who waits for it to leave the table waits for its parent instead."""
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as process:
        pidfd = children.open_pidfd(process.pid) if with_pidfd else None
        assert not children.wait_gone(process.pid, pidfd, 0)
        children.send_signal(process.pid, pidfd, signal.SIGKILL)
        assert children.wait_gone(process.pid, pidfd, 30)
        process.wait()
        assert children.wait_gone(process.pid, pidfd, 0)
        with pytest.raises(ProcessLookupError):
            children.send_signal(process.pid, pidfd, 0)
        if pidfd is not None:
            os.close(pidfd)
    with pytest.raises(ProcessLookupError):
        children.open_pidfd(process.pid)


@pytest.mark.parametrize("pid", [0, -1, -1000])
def test_a_group_is_never_signalled_by_accident(pid: int) -> None:
    """kill(0) is everybody in the terminal, kill(-1) everybody on the machine."""
    with pytest.raises(ValueError, match="not the pid of one process"):
        children.send_signal(pid, None, 0)
    with pytest.raises(ValueError, match="not the pid of one process"):
        children.open_pidfd(pid)


def test_every_child_that_ended_is_reaped_and_no_other() -> None:
    """A PID 1 owes it to orphans that it never heard of; it must not wait for those that run."""
    outcome = run_fresh("""
from forkfirst.unix import children, session
wait, go = os.pipe()
ended = []
for status in (3, 4):
    pid = session.fork()
    if pid == 0:
        session.leave(status)
    ended.append(pid)
running = session.fork()
if running == 0:
    os.close(go)
    os.read(wait, 1)
    session.leave(5)
for pid in ended:
    children.wait_gone(pid, children.open_pidfd(pid), 30)
reaped = children.reap_all()
tell(reaped=sorted(children.exit_status(raw) for _, raw in reaped),
     same={pid for pid, _ in reaped} == {*ended})
os.close(go)
tell(last=children.exit_status(children.waitpid(running)), none=children.reap_all())
""")
    assert outcome.told == [{"reaped": [3, 4], "same": True}, {"last": 5, "none": []}]


SESSION = """
import select, signal
from forkfirst.unix import children, session
ready, say = os.pipe()
leader = session.fork()
if leader == 0:
    session.start_session()
    for number in range(3):
        if session.fork() == 0:
            break
    with open("/proc/self/comm", "w") as comm:
        comm.write(") Z 1 1 (")  # a name may look like the rest of the line
    os.write(say, b"x")
    select.select([], [], [])
for _ in range(4):
    os.read(ready, 1)
"""


def test_a_session_is_ended_whole_and_nothing_else() -> None:
    """A program that could not start may have started others: they must not be left."""
    outcome = run_fresh(
        SESSION
        + """
members = children.list_session(leader)
pidfds = {pid: children.open_pidfd(pid) for pid in members}
signalled = children.end_session(leader, signal.SIGTERM)
tell(count=len(members), same=sorted(signalled) == sorted(members),
     gone=all(children.wait_gone(pid, fd, 30) for pid, fd in pidfds.items()),
     status=children.describe_status(children.waitpid(leader)))
tell(left=children.list_session(leader))
"""
    )
    assert outcome.told == [
        {"count": 4, "same": True, "gone": True, "status": "was killed by SIGTERM"},
        {"left": []},
    ], outcome.err


def test_a_zombie_is_no_member() -> None:
    """Only its parent can take it away: who waits until a session is empty would wait for ever."""
    outcome = run_fresh("""
from forkfirst.unix import children, session
pid = session.fork()
if pid == 0:
    session.start_session()
    session.leave(0)
pidfd = children.open_pidfd(pid)
children.wait_gone(pid, pidfd, 30)
tell(members=children.list_session(pid))
""")
    assert outcome.told == [{"members": []}]


def test_the_one_who_ends_its_session_is_left() -> None:
    """The session leader ends the others and then reports."""
    outcome = run_fresh("""
import select, signal
from forkfirst.unix import children, session
pid = session.fork()
if pid == 0:
    session.start_session()
    other = session.fork()
    if other == 0:
        select.select([], [], [])
    tell(only=children.end_session(os.getpid(), signal.SIGKILL) == (other,))
    tell(status=children.describe_status(children.waitpid(other)))
    session.leave(0)
children.waitpid(pid)
""")
    assert outcome.told == [{"only": True}, {"status": "was killed by SIGKILL"}]
