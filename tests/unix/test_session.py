"""Forking and detaching. Which breakage of it which test notices: see test_stdio."""

from __future__ import annotations

import errno

import pytest

from forkfirst.unix.session import Fork
from support.fresh import run_fresh


def test_a_fork_writes_what_was_buffered_once() -> None:
    """Both processes have a copy of the buffer, and each would write it."""
    program = """
from forkfirst.unix import session
sys.stdout.write("once")
pid = session.fork()
if pid:
    os.waitpid(pid, 0)
"""
    assert run_fresh(program).out == "once"
    assert run_fresh(program.replace("session.fork()", "os.fork()")).out == "onceonce"


def test_leaving_writes_and_runs_nothing() -> None:
    """What the process shares with the one that goes on is done by that one."""
    outcome = run_fresh("""
import atexit
from forkfirst.unix import session
atexit.register(tell, handler=True)
sys.stdout.write("buffered")
session.leave(7)
""")
    assert (outcome.status, outcome.told, outcome.out) == (7, [], "")


def test_a_fork_says_which_side_it_is() -> None:
    """As a value it can be a key, and be matched."""
    parent, child = Fork(pid=42), Fork(pid=0)
    assert (parent.is_parent, parent.is_child, parent.child_pid) == (True, False, 42)
    assert (child.is_parent, child.is_child, child.child_pid) == (False, True, None)
    assert {parent: "web"}[Fork(pid=42)] == "web"
    match parent:
        case Fork(is_child=True):
            pytest.fail("matched the wrong side")
        case Fork(child_pid=pid):
            assert pid == 42


def test_a_session_is_started_once() -> None:
    """A group leader cannot start one: the kernel says EPERM."""
    outcome = run_fresh("""
from forkfirst.unix import session
pid = session.fork()
if pid:
    os.waitpid(pid, 0)
    sys.exit()
tell(same=session.setsid() == os.getsid(0) == os.getpgrp() == os.getpid())
try:
    session.setsid()
except PermissionError as error:
    tell(errno=error.errno)
""")
    assert outcome.told == [{"same": True}, {"errno": errno.EPERM}]
