"""Who holds the lock runs: one at a time, never mistaken, never signalled by mistake."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.service_home import NOBODY, PATIENCE, PROGRAMS, holding, wait_gone

if TYPE_CHECKING:
    from support.service_home import Home

DAEMONS = PROGRAMS / "daemons.py"
WAIT = (f"{DAEMONS}:wait", "--name", "app")
ALREADY = re.compile(r'forkfirst: cannot start "app": already running \(pid (\d+)\)\n')


def start_at_once(home: Home, count: int) -> None:
    """Give the same command *count* times at the same moment; exactly one may win."""
    gate = home.directory / "gate"
    gate.touch()
    # They wait in flock(1), so that none is ahead by the time the others take to come up.
    with gate.open() as closed:
        import fcntl  # noqa: PLC0415 - only here

        fcntl.flock(closed, fcntl.LOCK_EX)
        starters = [
            home.open(
                *("flock", "--shared", gate, *home.words("start", *WAIT)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(count)
        ]
    outcomes = []
    for starter in starters:
        heard, complaint = starter.communicate(timeout=PATIENCE * 4)
        outcomes.append((starter.returncode, heard.decode(), complaint.decode()))
    pid = home.pid("app")
    losers = [one for one in outcomes if one[0] != 0]
    assert len(losers) == count - 1, outcomes
    for status, out, err in losers:
        assert (status, out) == (75, "")
        assert ALREADY.fullmatch(err), err
    # Those that came while it was being started saw the launcher hold the lock for it.
    assert list(home.list_processes()) == [pid]
    assert home.status("app")["state"] == "ready"
    last = home.forkfirst("start", *WAIT)
    assert (last.status, last.err) == (
        75,
        f'forkfirst: cannot start "app": already running (pid {pid})\n',
    )
    home.stop("app")
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]


def test_of_many_starts_at_once_exactly_one_wins(home: Home) -> None:
    """N7: a check followed by a write lets two pass."""
    for _ in range(3):
        start_at_once(home, 24)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_of_two_hundred_starts_at_once_exactly_one_wins_a_hundred_times(home: Home) -> None:
    """A race that is lost once in a hundred is lost every week."""
    for _ in range(100):
        start_at_once(home, 200)


# -- what a pid file may hold ---------------------------------------------------------------------


def leave(home: Home, text: str) -> Path:
    run = home.state / "run"
    run.mkdir(parents=True, mode=0o700)
    path = run / "app.pid"
    path.write_text(text)
    return path


RUBBISH = ["", "\n", "garbage\n", "0\n", "-1\n", "1", "99999999999999999999\n", "\0" * 64, "1 2\n"]


@pytest.mark.parametrize("text", RUBBISH)
def test_a_file_that_nobody_holds_is_replaced(home: Home, text: str) -> None:
    """N9: empty, garbage, 0, -1 or the pid of somebody: it is stale, whatever it says."""
    leave(home, text)
    assert home.forkfirst("status", "app").status == 1
    assert home.forkfirst("stop", "app").status == 3
    home.start(*WAIT)
    assert list(home.list_processes()) == [home.pid("app")]
    home.stop("app")
    assert not (home.state / "run" / "app.pid").exists()


def test_the_pid_of_another_process_is_not_believed(home: Home) -> None:
    """A pid that was used again: `stop` does not touch it, `start` does not mind it."""
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        try:
            leave(home, f"{stranger.pid}\n")
            assert home.forkfirst("stop", "app").status == 3
            home.start(*WAIT)
            assert home.pid("app") != stranger.pid
            home.stop("app")
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_pid_that_was_changed_in_a_held_file_is_not_signalled(home: Home) -> None:
    """The lock is held, but not by whom the file names: who holds it is ended, nobody else."""
    home.start(*WAIT)
    path = home.state / "run" / "app.pid"
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        try:
            path.write_text(f"{stranger.pid}\n")
            home.stop("app")
            assert stranger.poll() is None
            assert home.list_processes() == {}
        finally:
            stranger.kill()


def test_stop_removes_nothing_that_is_not_its_own(home: Home) -> None:
    """N8: an orphan that tidies up must not remove what its successor has made."""
    home.start(*WAIT)
    run = home.state / "run"
    for name in ("app.pid", "app.sock"):
        (run / name).rename(run / f"{name}.old")
        (run / name).write_text("a successor's")
    os.kill(int((run / "app.pid.old").read_text()), signal.SIGTERM)
    home.wait_alone()
    for name in ("app.pid", "app.sock"):
        assert (run / name).read_text() == "a successor's"


def test_the_listeners_path_of_a_successor_stays(home: Home) -> None:
    """As for the files of forkfirst itself."""
    path = home.directory / "web"
    home.start(f"{DAEMONS}:serve", "--name", "app", "--listen", f"web=unix:{path}")
    path.unlink()
    path.write_text("a successor's")
    home.stop("app")
    assert path.read_text() == "a successor's"


# -- stop -----------------------------------------------------------------------------------------

STUBBORN = """
import os, signal, time
def main(context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context.ready()
    while True:
        time.sleep(1000)
"""


def test_stop_returns_when_the_process_is_gone(home: Home) -> None:
    """N11: not when the request was heard."""
    home.program(
        "app.py",
        "import asyncio\nasync def main(c):\n    c.ready()\n    await c.wait_stopping()\n"
        "    await asyncio.sleep(0.3)\n    print('the end')\n",
    )
    home.start("app.py")
    with holding(home.pid("app")) as pidfd:
        assert pidfd is not None
        home.stop("app")
        wait_gone(pidfd, time.monotonic())
    assert home.log("app") == "the end\n"


@pytest.mark.uncovered
def test_stop_escalates_and_says_so(home: Home) -> None:
    """What ignores SIGTERM is killed when its time is over, and the message tells."""
    home.program("app.py", STUBBORN)
    home.start("app.py")
    pid = home.pid("app")
    done = home.forkfirst("stop", "app", "--grace-period", "0.1")
    said = f"app: stopped (pid {pid}, killed: it had not stopped after 0.1 s)\n"
    assert (done.status, done.out, done.err) == (0, said, "")
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]  # as after any stop: it is not dead
    home.start(f"{DAEMONS}:wait", "--name", "app")


def test_stop_ends_what_the_service_left_behind(home: Home) -> None:
    """And counts it: a port or a lock that a child still holds would spoil the next start."""
    home.program(
        "app.py",
        "import os, subprocess, time\n"
        "async def main(c):\n"
        "    subprocess.Popen(['sleep', '1000'], process_group=0)\n"
        "    if not os.fork():\n        time.sleep(1000)\n"
        "    c.ready()\n    await c.wait_stopping()\n",
    )
    home.start("app.py", "--listen", "web=127.0.0.1:0")
    pid = home.pid("app")
    done = home.stop("app")
    assert done.out == f"app: stopped (pid {pid}, and 2 processes that it left behind)\n"
    assert home.list_processes() == {}
    home.start("app.py")


def test_what_a_dead_service_left_behind_can_be_stopped(home: Home) -> None:
    """A forked child holds the lock: without this there would be neither start nor stop."""
    home.program(
        "app.py",
        "import os, time\ndef main(c):\n    if not os.fork():\n        time.sleep(1000)\n"
        "    c.ready()\n    c.wait_stopping_blocking()\n",
    )
    home.start("app.py")
    pid = home.pid("app")
    with holding(pid) as pidfd:
        os.kill(pid, signal.SIGKILL)
        assert pidfd is not None
        wait_gone(pidfd)
    refused = home.forkfirst("start", "app.py")
    assert refused.status == 75
    why = f"pid {pid} is dead, but what it left behind holds its lock"
    hint = "forkfirst stop app ends that"
    assert refused.err == f'forkfirst: cannot start "app": {why}\n  {hint}\n'
    assert home.forkfirst("status", "app").out == (
        f"app: dead, pid {pid}; what it left behind holds its lock: see forkfirst stop app\n"
    )
    done = home.stop("app")
    assert (
        done.out
        == f"app: stopped (pid {pid}, which had just ended, and 1 process that it left behind)\n"
    )
    assert home.list_processes() == {}
    home.start("app.py")


def test_who_has_left_the_session_with_the_lock_is_not_killed_but_named(home: Home) -> None:
    """What a dead service has sent away on purpose is nobody's to guess about."""
    home.program(
        "app.py",
        "import os, time\ndef main(c):\n    reading, writing = os.pipe()\n"
        "    if not os.fork():\n        os.setsid()\n        os.close(writing)\n"
        "        time.sleep(1000)\n"
        "    os.close(writing)\n    os.read(reading, 1)\n"
        "    c.ready()\n    c.wait_stopping_blocking()\n",
    )
    home.start("app.py")
    pid = home.pid("app")
    with holding(pid) as pidfd:
        os.kill(pid, signal.SIGKILL)
        assert pidfd is not None
        wait_gone(pidfd)
    (left,) = home.list_processes()
    done = home.forkfirst("stop", "app")
    assert (done.status, done.out) == (70, "")
    path = home.state / "run" / "app.pid"
    assert done.err == (
        f'forkfirst: cannot stop "app": pid {pid} is gone, and others hold its lock {path}\n'
        "  find them: fuser -v PATH, or lslocks\n"
    )
    assert list(home.list_processes()) == [left]


def test_stop_never_touches_the_session_of_whoever_started(home: Home) -> None:
    """Not even where the starter's own session has lost its leader."""
    script = (
        f"sleep 1000 & {' '.join(home.words('run', f'{DAEMONS}:wait', '--name', 'app'))} & "
        "echo $!; exit 0"
    )
    process = home.open("setsid", "sh", "-c", script, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.wait(PATIENCE)
    process.stdout.close()
    wait_until_ready(home, pid)
    home.stop("app")
    left = home.list_processes()
    assert list(left.values()) == ["sleep 1000"]


def wait_until_ready(home: Home, pid: int) -> None:
    """Ask until the foreground service answers; each question is a barrier of its own."""
    deadline = time.monotonic() + PATIENCE
    while home.forkfirst("status", "app", "--json").out.find('"state": "ready"') < 0:
        assert time.monotonic() < deadline
        assert Path(f"/proc/{pid}").exists()


def test_stop_during_a_start_takes_it_down(home: Home) -> None:
    """Whoever holds the lock is the service, also when it is still being started."""
    home.program("app.py", "import asyncio\nasync def main(c):\n    await asyncio.Event().wait()\n")
    process = home.open(*home.words("start", "app.py"), stderr=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE
    while '"state": "starting"' not in home.forkfirst("status", "app", "--json").out:
        assert time.monotonic() < deadline
    home.stop("app")
    process.communicate(timeout=PATIENCE)
    assert process.returncode not in {0, None}
    assert (home.list_processes(), home.list_files()) == ({}, [])


def test_two_stops_at_once_both_end_well(home: Home) -> None:
    """The one that comes later finds it gone, or going: it signals nobody else."""
    home.start(*WAIT)
    both = [
        home.open(*home.words("stop", "app"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for one in both:
        one.communicate(timeout=PATIENCE)
        assert one.returncode in {0, 3}
    assert home.list_processes() == {}


def test_two_restarts_at_once_leave_one_service(home: Home) -> None:
    """Nothing between the stop and the start is left to chance: the lock decides."""
    home.start(*WAIT)
    both = [
        home.open(*home.words("restart", "app"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    statuses = []
    for one in both:
        one.communicate(timeout=PATIENCE)
        statuses.append(one.returncode)
    assert set(statuses) <= {0, 75, 143}
    assert 0 in statuses
    assert list(home.list_processes()) == [home.pid("app")]
    assert home.status("app")["state"] == "ready"


def test_a_service_that_another_name_uses_is_not_touched(home: Home) -> None:
    """Two services of one program are two."""
    home.start(f"{DAEMONS}:wait", "--name", "one")
    home.start(f"{DAEMONS}:wait", "--name", "two")
    home.stop("one")
    assert list(home.list_processes()) == [home.pid("two")]


# -- another user ---------------------------------------------------------------------------------


@pytest.mark.real
def test_another_user_cannot_stop_it(home: Home) -> None:
    """77, and it goes on: also where that user can read the pid file."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    home.directory.chmod(0o755)
    home.start(*WAIT)
    pid = home.pid("app")
    done = home.forkfirst("stop", "app", uid=NOBODY)
    assert done.status == 77
    assert done.err.count("\n") == 1
    assert list(home.list_processes()) == [pid]
    assert home.status("app")["state"] == "ready"


@pytest.mark.real
def test_another_users_pid_file_is_not_taken_over(home: Home) -> None:
    """Root's file in a directory of somebody else's, or theirs in root's: both are refused."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    path = leave(home, f"{os.getpid()}\n")
    os.chown(path, NOBODY, NOBODY)
    done = home.forkfirst("start", *WAIT)
    assert done.status == 77
    assert "belongs to uid 65534" in done.err or "trust" in done.err
    assert home.list_processes() == {}
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_pid_file_is_as_the_manual_says(home: Home) -> None:
    """The pid and a newline, nothing else; readable for all, writable for its owner."""
    home.start(*WAIT)
    path = home.state / "run" / "app.pid"
    (pid,) = home.list_processes()
    assert path.read_bytes() == b"%d\n" % pid
    assert path.stat().st_mode & 0o777 == 0o644
    assert (home.state / "run").stat().st_mode & 0o777 == 0o700
    assert (home.state / "run" / "app.sock").stat().st_mode & 0o777 == 0o600


TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1]) as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(9)
"""


def test_the_lock_is_held_for_as_long_as_the_service_lives(home: Home) -> None:
    """By what the kernel says, not by what a file says."""
    home.start(*WAIT)
    path = home.state / "run" / "app.pid"
    busy = (sys.executable, "-c", TRY_LOCK, path)
    assert home.run(*busy).status == 9
