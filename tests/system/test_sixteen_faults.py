"""N1 to N16: sixteen faults that were found in a real daemon, none of which may be here.

Most are laws of their own in other files; here each stands once, by its number, in a real service.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from support.service_home import NOBODY, PATIENCE, PROGRAMS, holding, talk, wait_gone

if TYPE_CHECKING:
    from support.service_home import Home, Told

DAEMONS = PROGRAMS / "daemons.py"
WAIT = (f"{DAEMONS}:wait", "--name", "app")
SERVE = (f"{DAEMONS}:serve", "--name", "app", "--listen", "web=127.0.0.1:0")


def test_n1_a_start_says_that_it_started(home: Home) -> None:
    """The message stood in a process that had already left."""
    out = home.start(*WAIT).out
    assert out.startswith(f"app: running in the background, pid {home.pid('app')}, ready after ")


def test_n2_success_is_not_told_before_it_is_true(home: Home) -> None:
    """The port answers when the command is back; what fails later than the fork is told."""
    home.start(*SERVE)
    assert talk(home.address("app")) == b"hello\n"
    home.program(
        "late.py", "import asyncio\nasync def main(c):\n    await asyncio.sleep(0.2)\n    1 / 0\n"
    )
    done = home.forkfirst("start", "late.py")
    assert done.status == 70
    assert "ZeroDivisionError" in done.err


def test_n3_a_restart_makes_no_runtime_before_its_fork(home: Home) -> None:
    """Nor loads the module of one: the rule has no exception for `-r`."""
    home.start(*WAIT)
    home.program(
        "sitecustomize.py",
        "import os, sys\n"
        "os.register_at_fork(before=lambda: open(os.environ['SEEN'], 'a').write("
        "f\"{'asyncio' in sys.modules} {len(os.listdir('/proc/self/task'))}\\n\"))\n",
    )
    home.environment["SEEN"] = str(home.directory / "seen")
    path = [str(home.directory), home.environment.get("PYTHONPATH", "")]
    home.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    home.start("-r", *WAIT)
    assert (home.directory / "seen").read_text() == "False 1\n" * 2


def test_n4_a_restart_waits_for_the_end_and_not_for_a_time(home: Home) -> None:
    """However long the end takes; and if it could not be ended, the status would say so."""
    home.program(
        "app.py",
        "import asyncio\nasync def main(c):\n    c.ready()\n    await c.wait_stopping()\n"
        "    await asyncio.sleep(0.7)\n    print('the end')\n",
    )
    home.start("app.py", "--listen", f"web=unix:{home.directory}/web")
    first = home.pid("app")
    assert home.forkfirst("restart", "app").status == 0
    assert home.pid("app") != first
    assert home.log("app") == "the end\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("start", *WAIT), 75),
        (("stop", "other"), 3),
        (("status", "other"), 3),
        (("restart", "other"), 3),
        (("stacks", "other"), 3),
        (("logs", "other"), 66),
        (("start", "nosuch.py"), 66),
    ],
)
def test_n5_a_failure_is_no_success(home: Home, words: tuple[str, ...], status: int) -> None:
    """Each has a status of its own."""
    home.start(*WAIT)
    assert home.forkfirst(*words).status == status


def test_n6_there_is_one_pid_file_with_one_writer_and_one_form(home: Home) -> None:
    """And the service alone is named in it, from READY on."""
    home.start(*WAIT)
    holders = [name for name in home.list_files() if name.endswith(".pid")]
    assert holders == ["run/app.pid"]
    (pid,) = home.list_processes()
    assert (home.state / "run" / "app.pid").read_text() == f"{pid}\n"


def test_n7_two_starters_do_not_both_pass(home: Home) -> None:
    """The lock decides, not a look before the write."""
    both = [
        home.open(*home.words("start", *WAIT), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for one in both:
        one.communicate(timeout=PATIENCE)
    assert sorted(one.returncode for one in both) == [0, 75]
    assert list(home.list_processes()) == [home.pid("app")]


def test_n8_nobody_removes_what_is_not_its_own(home: Home) -> None:
    """A file of the same name may be a successor's."""
    home.start(*WAIT)
    run = home.state / "run"
    pid = home.pid("app")
    for name in ("app.pid", "app.sock"):
        (run / name).unlink()
        (run / name).write_text("another's")
    with holding(pid) as pidfd:
        os.kill(pid, signal.SIGTERM)
        assert pidfd is not None
        wait_gone(pidfd)
    assert [(run / name).read_text() for name in ("app.pid", "app.sock")] == ["another's"] * 2


@pytest.mark.parametrize("text", ["", "0\n", "-1\n", "1\n", "4194305\n", "x"])
def test_n9_a_number_in_a_file_is_not_a_service(home: Home, text: str) -> None:
    """Neither the pid of somebody else, nor 0 and -1, which would mean everybody, nor nothing."""
    (home.state / "run").mkdir(parents=True, mode=0o700)
    (home.state / "run" / "app.pid").write_text(text)
    assert home.forkfirst("status", "app").status == 1
    assert home.forkfirst("stop", "app").status == 3
    home.start(*WAIT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_n10_a_signal_ends_it_in_order(home: Home, number: signal.Signals) -> None:
    """`kill PID`, a reboot: no socket and no pid file stays."""
    home.start(*SERVE)
    os.kill(home.pid("app"), number)
    home.wait_alone()
    assert home.list_files() == ["app.log", "run/app.service"]
    assert home.forkfirst("status", "app").status == 3


def test_n11_stopped_means_gone(home: Home) -> None:
    """Not "it has heard"."""
    home.start(*WAIT)
    with holding(home.pid("app")) as pidfd:
        assert home.stop("app").out.startswith("app: stopped (pid ")
        assert pidfd is not None
        wait_gone(pidfd, time.monotonic())


def test_n12_a_stuck_service_is_said_to_be_stuck(home: Home, told: Told) -> None:
    """Within a deadline, with how long it has been so, and it can still be stopped."""
    home.program(
        "app.py",
        "import os, time\nasync def main(c):\n    c.ready()\n"
        "    open(os.environ['TELL'], 'w').write('stuck\\n')\n    time.sleep(1000)\n",
    )
    home.start("app.py")
    told.wait()
    began = time.monotonic()
    while (done := home.forkfirst("status", "app")).out.startswith("app: ready"):
        assert time.monotonic() - began < PATIENCE
    assert re.match(r"app: stuck, pid \d+", done.out)
    assert re.search(r"its loop has not turned for \d+\.\d s; see forkfirst stacks app", done.out)
    assert home.forkfirst("stop", "app", "--grace-period", "0.1").status == 0


def test_n12_a_stopped_process_does_not_hang_its_askers(home: Home) -> None:
    """Not even the thread that answers is running then."""
    home.start(*WAIT)
    pid = home.pid("app")
    os.kill(pid, signal.SIGSTOP)
    try:
        done = home.forkfirst("status", "app")
        assert done.status == 0
        assert done.out.startswith(f"app: stuck, pid {pid}\n  does not answer: ")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_n13_there_is_no_moment_in_which_it_runs_and_does_not_run(home: Home, told: Told) -> None:
    """While it is being started it is "starting"; if the start fails, no file says otherwise."""
    home.program(
        "app.py",
        "import os\ndef main(c):\n    open(os.environ['TELL'], 'w').write('here\\n')\n"
        "    c.wait_stopping_blocking()\n",
    )
    launcher = home.open(*home.words("start", "app.py"), stderr=subprocess.PIPE)
    told.wait()
    done = home.forkfirst("status", "app")
    assert done.status == 0
    assert done.out.startswith("app: starting, pid ")
    assert home.forkfirst("start", "app.py").status == 75
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=PATIENCE)
    assert home.forkfirst("status", "app").status == 3
    assert home.list_files() == []


def test_n14_a_relative_path_means_one_file(home: Home) -> None:
    """Before and after the daemon has gone to the root directory."""
    home.environment["FORKFIRST_STATE_DIR"] = "relative"
    home.program(
        "app.py", "async def main(c):\n    print('x')\n    c.ready()\n    await c.wait_stopping()\n"
    )
    try:
        (home.directory / "own").mkdir()
        done = home.forkfirst("start", "app.py", "--log", "own.log", "--pid-file", "own/app.pid")
        assert (done.status, done.err) == (0, "")
        assert (home.directory / "own.log").read_text() == "x\n"
        assert (home.directory / "own" / "app.pid").exists()
        assert (home.directory / "relative" / "run" / "app.sock").exists()
        assert home.forkfirst("stop", "app").status == 0
        assert not (home.directory / "own" / "app.pid").exists()
    finally:
        home.forkfirst("stop", "app")


def test_n15_nobody_else_can_talk_to_it(home: Home) -> None:
    """The socket is its owner's alone from its first moment, whatever the umask."""
    home.start(*WAIT, umask=0)
    run = home.state / "run"
    assert (run / "app.sock").stat().st_mode & 0o777 == 0o600
    assert run.stat().st_mode & 0o777 == 0o700


ASKS = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b'{"ask": "stop"}\\n')
except BrokenPipeError:
    pass  # it has answered and hung up already
print(s.recv(1000).decode())
"""


@pytest.mark.real
def test_n15_another_user_who_can_reach_it_is_refused(home: Home) -> None:
    """By what the kernel says of the caller."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    home.start(*WAIT)
    home.directory.chmod(0o711)
    for path in (home.state, home.state / "run"):
        path.chmod(0o711)
    (home.state / "run" / "app.sock").chmod(0o666)
    done = home.run(sys.executable, "-c", ASKS, home.state / "run" / "app.sock", uid=NOBODY)
    assert '"refused":true' in done.out
    (home.state / "run").chmod(0o700)
    assert home.status("app")["state"] == "ready"


def test_n16_a_request_that_was_begun_is_answered(home: Home, told: Told) -> None:
    """A program that waits for the stop decides when it is done, within the grace period."""
    home.program(
        "app.py",
        "import asyncio, os\n"
        "async def main(c):\n"
        "    answered = asyncio.Event()\n"
        "    async def answer(reader, writer):\n"
        "        await reader.readline()\n"
        "        open(os.environ['TELL'], 'w').write('asked\\n')\n"
        "        await c.wait_stopping()\n"
        "        await asyncio.sleep(0.2)\n"
        "        writer.write(b'answer\\n')\n"
        "        writer.close()\n"
        "        await writer.wait_closed()\n"
        "        answered.set()\n"
        "    await asyncio.start_server(answer, sock=c.listener('web'))\n"
        "    c.ready()\n"
        "    await c.wait_stopping()\n"
        "    await answered.wait()\n",
    )
    home.start("app.py", "--listen", "web=127.0.0.1:0")
    address = home.address("app")
    assert not isinstance(address, str)
    with socket.create_connection(address, timeout=PATIENCE) as client:
        client.sendall(b"question\n")
        assert told.wait() == "asked"
        stopping = home.open(*home.words("stop", "app"), stdout=subprocess.PIPE)
        assert client.recv(100) == b"answer\n"
        out, _ = stopping.communicate(timeout=PATIENCE)
    assert b"killed" not in out


@pytest.mark.uncovered
def test_n16_an_accept_that_fails_does_not_make_it_unreachable(home: Home) -> None:
    """No descriptor is left for a connection: there is one kept for whoever asks what is wrong."""
    home.program(
        "app.py",
        "import asyncio, resource\n"
        "async def main(c):\n"
        "    async def answer(reader, writer):\n"
        "        await reader.read()\n"
        "    await asyncio.start_server(answer, sock=c.listener('web'))\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "    c.ready()\n    await c.wait_stopping()\n",
    )
    home.start("app.py", "--listen", "web=127.0.0.1:0")
    address = home.address("app")
    assert not isinstance(address, str)
    clients = [socket.create_connection(address, timeout=PATIENCE) for _ in range(30)]
    try:
        for _ in range(10):
            assert home.status("app")["state"] == "ready"
        assert "out of system resource" in home.log("app"), "or this would prove nothing"
    finally:
        for client in clients:
            client.close()
