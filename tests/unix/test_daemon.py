"""Becoming a daemon in one call. Which breakage of it which test notices: see test_stdio."""

from __future__ import annotations

import errno

import pytest

from support.fresh import run_fresh

DAEMON = """
import select
from forkfirst.unix.daemon import daemon
NULL = os.stat(os.devnull).st_rdev
def describe(who):
    tell(who=who, pid=os.getpid(), parent=os.getppid(), session=os.getsid(0), group=os.getpgrp(),
         cwd=os.getcwd(), null=[os.fstat(fd).st_rdev == NULL for fd in range(3)])
os.chdir("/dev")
describe("caller")
"""


def test_a_daemon_does_what_it_was_not_told_to_leave() -> None:
    """Its directory would keep a file system busy, its output would hold up `$(start)`."""
    outcome = run_fresh(DAEMON + "daemon(); describe('daemon')")
    caller, daemon = outcome.told
    assert outcome.status == 0
    assert daemon["cwd"] == "/"
    assert daemon["null"] == [True, True, True]
    assert caller["cwd"] != "/"
    assert caller["null"] == [True, False, False]


@pytest.mark.parametrize("nochdir", [True, False])
@pytest.mark.parametrize("noclose", [True, False])
def test_a_daemon_leaves_what_it_was_told_to_leave(*, nochdir: bool, noclose: bool) -> None:
    """The two flags are independent, and each is obeyed."""
    outcome = run_fresh(
        DAEMON + f"daemon(nochdir={nochdir}, noclose={noclose}); describe('daemon')"
    )
    caller, daemon = outcome.told
    assert daemon["cwd"] == (caller["cwd"] if nochdir else "/")
    assert daemon["null"] == (caller["null"] if noclose else [True, True, True])


def test_a_daemon_has_no_terminal_and_cannot_get_one() -> None:
    """Without a session of its own it has the caller's; as its leader it would get the next one."""
    outcome = run_fresh(
        """
import errno
main, side = os.openpty()
os.setsid()
os.close(os.open(os.ttyname(side), os.O_RDWR))
def can_reach_terminal():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError as error:
        assert error.errno == errno.ENXIO, error
        return False
    return True
other = os.ttyname(os.openpty()[1])
tell(reached=can_reach_terminal())
"""
        + DAEMON
        + """
daemon(noclose=True)
describe("daemon")
tell(reached=can_reach_terminal())
os.close(os.open(other, os.O_RDWR))
tell(reached=can_reach_terminal())
"""
    )
    before, caller, daemon, after, again = outcome.told
    assert before == {"reached": True}
    assert after == again == {"reached": False}
    assert daemon["session"] != caller["session"]
    assert daemon["pid"] != daemon["session"] == daemon["group"]


def test_only_the_daemon_runs_exit_handlers() -> None:
    """In three processes they would remove the daemon's files twice before it uses them."""
    outcome = run_fresh(
        """
import atexit
atexit.register(lambda: tell(handler=os.getpid()))
sys.stdout.write("once")
"""
        + DAEMON
        + "daemon(noclose=True); describe('daemon')"
    )
    _, daemon, *handlers = outcome.told
    assert handlers == [{"handler": daemon["pid"]}]
    assert outcome.out == "once"


def test_the_caller_leaves_when_only_the_daemon_is_left() -> None:
    """A service manager that looks then must not take the process between for the daemon."""
    outcome = run_fresh(
        DAEMON
        + """
caller = os.getpid()
ended = os.pidfd_open(caller)
daemon()
select.select([ended], [], [], 30)
between = os.getsid(0)
tell(adopted=os.getppid() not in (caller, between), between=os.path.exists(f"/proc/{between}"))
"""
    )
    # Adopted by whoever reaps orphans here; that one may not have reaped the process between,
    # but the caller, which did, has.
    assert outcome.told[1] == {"adopted": True, "between": False}


BREAK_THE_CHILD = """
import resource
def limit():
    if os.getpid() != caller:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(7)[1]))
caller = os.getpid()
os.register_at_fork(after_in_child=limit)
"""


def test_a_failure_of_a_child_is_raised_in_the_caller() -> None:
    """The crate's caller has said success by then; this one has the error, and goes on."""
    outcome = run_fresh(
        BREAK_THE_CHILD
        + DAEMON
        + """
try:
    daemon()
except OSError as error:
    tell(errno=error.errno, path=error.filename, caller=os.getpid() == caller)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    tell(children=0)
sys.exit(3)
"""
    )
    assert outcome.status == 3, outcome.err
    assert outcome.told[1:] == [
        {"errno": errno.EMFILE, "path": "/dev/null", "caller": True},
        {"children": 0},
    ]


def test_a_child_that_is_killed_is_reported_too() -> None:
    """The end of file of the report pipe is a report: it must not be taken for success."""
    outcome = run_fresh(
        """
import signal
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""
        + DAEMON
        + """
try:
    daemon()
except ChildProcessError as error:
    tell(error=str(error))
"""
    )
    assert outcome.told[1:] == [
        {"error": "the daemon was not detached: its parent was killed by SIGKILL"}
    ]


def test_no_daemon_is_left_when_the_caller_is_interrupted() -> None:
    """Ctrl-C while waiting means no, not "go on where I cannot see you"."""
    outcome = run_fresh(
        """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
caller = os.getpid()
wait, go = os.pipe()
def interrupt():
    if os.getppid() == caller:
        os.close(go)
        os.kill(caller, signal.SIGINT)
        os.read(wait, 1)  # until the caller is out of daemon()
os.register_at_fork(after_in_child=interrupt)
"""
        + DAEMON
        + """
try:
    daemon()
except KeyboardInterrupt:
    tell(interrupted=True)
    os.close(go)
else:
    describe("daemon")
"""
    )
    assert outcome.told[1:] == [{"interrupted": True}]


@pytest.mark.real
def test_a_refused_second_fork_is_raised_in_the_caller() -> None:
    """EAGAIN of a limit on processes: it comes after the first child was made."""
    outcome = run_fresh(
        """
import resource
caller = os.getpid()
def limit():
    if os.getppid() == caller:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
os.register_at_fork(after_in_child=limit)
"""
        + DAEMON
        + """
os.setuid(64999)  # nobody else's: the limit counts the processes of a user
try:
    daemon()
except BlockingIOError as error:
    tell(errno=error.errno)
"""
    )
    assert outcome.told[1:] == [{"errno": errno.EAGAIN}], outcome.err
