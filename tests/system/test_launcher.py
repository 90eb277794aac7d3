"""The launcher itself: interrupted, killed, unheard. Nothing it began may outlive it unknown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.service_home import PATIENCE, PROGRAMS, holding, wait_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.service_home import Home, Told

DAEMONS = PROGRAMS / "daemons.py"
TELL = """
import os
def tell(text):
    with open(os.environ["TELL"], "w") as fifo:
        fifo.write(f"{text}\\n")
"""
# It never becomes ready, and says how it is ended.
SLOW = f"""{TELL}
import asyncio
async def main(context):
    tell("waiting")
    try:
        await asyncio.Event().wait()
    finally:
        tell("cancelled")
"""
# It cannot be ended but by SIGKILL.
DEAF = f"""{TELL}
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def main(context):
    signal.signal(signal.SIGTERM, lambda *_: tell("deaf"))
    tell("waiting")
    while True:
        time.sleep(0.01)  # a signal between two of its steps must not be slept over
"""


@contextmanager
def launching(home: Home, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a start that is not awaited."""
    process = home.open(
        *home.words("start", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_start_takes_the_service_down(
    home: Home, told: Told, number: signal.Signals
) -> None:
    """As a stop would: its `finally` runs; then nothing is left, and the status is 128 + n."""
    home.program("app.py", SLOW)
    with launching(home, "app.py") as launcher:
        assert told.wait() == "waiting"
        launcher.send_signal(number)
        out, err = launcher.communicate(timeout=PATIENCE)
        assert (home.list_processes(), home.list_files()) == ({}, [])
    assert told.wait() == "cancelled"
    assert (launcher.returncode, out) == (128 + number, b"")
    assert err.decode() == (
        f'forkfirst: cannot start "app": given up on {number.name}, '
        "and the service was taken down\n"
    )


def test_a_second_interrupt_does_not_wait(home: Home, told: Told) -> None:
    """Somebody is impatient: what does not stop is killed."""
    home.program("app.py", DEAF)
    with launching(home, "app.py") as launcher:
        assert told.wait() == "waiting"
        launcher.send_signal(signal.SIGINT)
        assert told.wait() == "deaf"
        launcher.send_signal(signal.SIGINT)
        launcher.communicate(timeout=PATIENCE)
        assert (home.list_processes(), home.list_files()) == ({}, [])
    assert launcher.returncode == 130


def test_a_killed_launcher_leaves_no_service(home: Home, told: Told) -> None:
    """Nobody was told that it runs, so it must not."""
    home.program("app.py", SLOW)
    with launching(home, "app.py") as launcher:
        assert told.wait() == "waiting"
        launcher.kill()
        launcher.wait(PATIENCE)
        home.wait_alone()
    home.start(f"{DAEMONS}:wait", "--name", "app")
    home.stop("app")


def test_without_its_leader_a_start_still_ends_in_time(home: Home, told: Told) -> None:
    """Nobody sees the service's end then, but the launcher has its own limit."""
    home.program("app.py", SLOW)
    with launching(home, "app.py", "--ready-timeout", "1") as launcher:
        assert told.wait() == "waiting"
        os.kill(os.getsid(home.pid("app")), signal.SIGKILL)
        launcher.communicate(timeout=PATIENCE)
        assert (home.list_processes(), home.list_files()) == ({}, [])
    assert launcher.returncode == 124


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_is_ignored(
    home: Home, told: Told, number: signal.Signals
) -> None:
    """nohup(1) sets it so, and a shell for what it runs in the background."""
    ready = home.directory / "go"
    os.mkfifo(ready)
    home.program(
        "app.py",
        f"{TELL}def main(context):\n    tell('here')\n    open({str(ready)!r}).read()\n"
        "    context.ready()\n    context.wait_stopping_blocking()\n",
    )
    words = ("sh", "-c", f'trap "" {number.name[3:]}; exec "$@"', "sh")
    process = home.open(*words, *home.words("start", "app.py"), stdout=subprocess.PIPE)
    assert told.wait() == "here"
    process.send_signal(number)
    ready.write_text("go")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    home.stop("app")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_start_that_nobody_hears_still_has_the_right_status(home: Home, stream: str) -> None:
    """The service runs, or it does not; who reads the terminal does not change that."""
    home.program("broken.py", "print('x' * 100_000)\n1 / 0\n")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = home.open(*home.words("start", f"{DAEMONS}:wait"), **{stream: writing})
        assert done.wait(PATIENCE) == 0
        home.stop("daemons")
        done = home.open(*home.words("start", "broken.py"), **{stream: writing})
        assert done.wait(PATIENCE) == 70
    finally:
        os.close(writing)
    assert home.list_processes() == {}
    assert [file for file in home.list_files() if "broken" in file] == []


@pytest.mark.parametrize("command", ["status", "logs", "ps", "stacks", "--help"])
@pytest.mark.parametrize("sink", ["/dev/full", "a closed pipe"])
def test_an_answer_that_reaches_nobody_is_a_failure(home: Home, command: str, sink: str) -> None:
    """74 or 141, and no traceback: a script would take an empty answer for one."""
    home.program(
        "app.py", "def main(c):\n    print('line')\n    c.ready()\n    c.wait_stopping_blocking()\n"
    )
    home.start("app.py")
    if sink == "/dev/full":
        writing = os.open(sink, os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    name = () if command in {"ps", "--help"} else ("app",)
    try:
        process = home.open(*home.words(command, *name), stdout=writing, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        os.close(writing)
    assert process.returncode == (74 if sink == "/dev/full" else 141)
    assert b"Traceback" not in err


def test_who_reads_the_output_of_a_start_sees_its_end_at_once(home: Home) -> None:
    """`$(forkfirst start …)`, ssh and CI wait for the end of file: a daemon must not hold it."""
    home.program(
        "app.py",
        "import subprocess, time\nsubprocess.Popen(['sleep', '1000'])\n"
        "async def main(c):\n    c.ready()\n    await c.wait_stopping()\n",
    )
    script = f'out=$({" ".join(home.words("start", "app.py"))} 2>&1); echo "<$out>"'
    done = home.run("sh", "-c", script)
    assert done.out.startswith("<app: running in the background, pid ")
    assert home.status("app")["state"] == "ready"


def test_a_service_does_not_end_with_the_session_that_started_it(home: Home) -> None:
    """Nor with the terminal: that is what a daemon is."""
    script = f"{' '.join(home.words('start', f'{DAEMONS}:wait'))} >/dev/null; kill -HUP 0"
    done = home.run("setsid", "sh", "-c", script)
    assert done.status == -signal.SIGHUP
    assert home.status("daemons")["state"] == "ready"
    home.stop("daemons")


def test_the_launcher_is_the_last_to_leave_before_ready(home: Home) -> None:
    """When the command is back, the leader is gone: only the service is there."""
    home.start(f"{DAEMONS}:wait")
    assert list(home.list_processes()) == [home.pid("daemons")]


ADOPTS = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become our children
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
assert os.waitpid(-1, os.WNOHANG) == (0, 0), "besides the service that runs there is a zombie"
"""


def test_the_launcher_reaps_its_own(home: Home) -> None:
    """It does not leave a zombie to whoever adopts orphans: in a container that may be nobody."""
    done = home.run(sys.executable, "-c", ADOPTS, *home.words("start", f"{DAEMONS}:wait"))
    assert (done.status, done.err) == (0, "")


def test_a_service_that_dies_right_after_ready_is_known_to_be_dead(home: Home) -> None:
    """The start said the truth when it said it; `status` says the next one."""
    home.program(
        "app.py",
        "import os\ndef main(context):\n    context.ready()\n    os.kill(os.getpid(), 9)\n",
    )
    home.start("app.py")
    home.wait_alone()
    assert home.forkfirst("status", "app").status == 1


def test_a_stopped_start_can_be_continued(home: Home, told: Told) -> None:
    """Ctrl-Z and fg: the service was never part of that job."""
    home.program(
        "app.py",
        f"{TELL}def main(c):\n    tell('here')\n    c.ready()\n    c.wait_stopping_blocking()\n",
    )
    with launching(home, "app.py") as launcher:
        assert told.wait() == "here"
        launcher.send_signal(signal.SIGSTOP)
        launcher.send_signal(signal.SIGCONT)
        assert launcher.wait(PATIENCE) == 0
    with holding(home.pid("app")) as pidfd:
        home.stop("app")
        assert pidfd is not None
        wait_gone(pidfd)
