"""`run`: under somebody's eyes. Nothing is detached, and the status is the program's."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.service_home import PATIENCE, PROGRAMS, talk

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
WAITS = f"""{TELL}
async def main(context):
    context.ready()
    tell("ready")
    await context.wait_stopping()
    print("stopped", flush=True)
"""


@contextmanager
def running(
    home: Home, *words: object, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service in the foreground, and not wait for it."""
    process = home.open(
        *before, *home.words("run", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("command", [("run",), ("start", "-f"), ("start", "-rf")])
def test_it_stays_in_the_process_that_was_started(
    home: Home, told: Told, command: tuple[str, ...]
) -> None:
    """Same pid, same session, same streams, same directory; and known by its name like a daemon."""
    home.program("app.py", f"{WAITS}    print(os.getcwd())\n")
    process = home.open(
        *home.words(*command, "app.py"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert told.wait() == "ready"
        assert home.pid("app") == process.pid
        assert list(home.list_processes()) == [process.pid]
        facts = home.status("app")
        assert (facts["mode"], facts["state"], facts["log"]) == ("foreground", "ready", "")
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (0, f"stopped\n{home.directory}\n", "")
    finally:
        process.kill()
        process.wait()
    assert home.list_files() == []


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("return", 0),
        ("return 7", 7),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        ("os.kill(os.getpid(), 11)", -11),
        ("os.kill(os.getpid(), 9)", -9),
    ],
)
@pytest.mark.parametrize("kind", ["async def", "def"])
def test_it_ends_as_the_program_ends(home: Home, kind: str, end: str, status: int) -> None:
    """Its own status, or its own death: a supervisor decides by that."""
    home.program("app.py", f"import os\n{kind} main(context):\n    context.ready()\n    {end}\n")
    with running(home, "app.py") as process:
        ended, _, err = finish(process)
    assert ended == status
    assert ("ZeroDivisionError" in err) == (end == "1 / 0")
    if status >= 0:
        assert home.list_files() == []
    assert home.forkfirst("status", "app").status == (3 if status >= 0 else 1)


@pytest.mark.parametrize(("end", "status"), [("exit 4", 4), ("kill -9 $$", 137), ("true", 0)])
def test_a_command_ends_it_as_the_command_ends(home: Home, end: str, status: int) -> None:
    """128 + n for a death by signal, as a shell has it."""
    with running(home, "--name", "app", "--settle", "0", "--", "sh", "-c", end) as process:
        assert finish(process)[0] == status


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("nosuch.py",), 66),
        (("app.py", "--listen", "web=192.0.2.1:1"), 69),
        (("app.py:nosuch",), 66),
        (("app.py", "--umask", "x"), 78),
        (("app.py", "--chdir", "/nosuch"), 78),
    ],
)
def test_what_cannot_be_run_is_one_line(home: Home, words: tuple[str, ...], status: int) -> None:
    """The same statuses as a start has, and nothing left."""
    home.program("app.py", "async def main(): pass\n")
    done = home.forkfirst("run", *words)
    assert (done.status, done.out) == (status, "")
    assert "Traceback" not in done.err
    assert done.err.startswith("forkfirst: ")
    assert (home.list_processes(), home.list_files()) == ({}, [])


def test_a_program_that_fails_before_it_is_ready(home: Home) -> None:
    """70, as with a start; its traceback is on the terminal by itself."""
    home.program("app.py", "1 / 0\n")
    done = home.forkfirst("run", "app.py")
    assert done.status == 70
    assert done.err.rstrip().endswith("ZeroDivisionError: division by zero")
    assert home.list_processes() == {}


def test_ctrl_c_stops_it_in_order(home: Home, told: Told) -> None:
    """On a real terminal: `finally` runs, the status is 0, and the prompt comes back."""
    home.program("app.py", WAITS)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home.directory)
        words = home.words("run", "app.py")
        os.execve(words[0], words, home.environment)  # noqa: S606 - our own command
    try:
        assert told.wait() == "ready"
        os.write(terminal, b"\x03")
        _, raw = os.waitpid(pid, 0)
        output = b""
        while True:
            try:
                output += os.read(terminal, 1000)
            except OSError:  # the end of a terminal whose other side is closed
                break
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(raw) == 0
    assert b"stopped" in output
    assert b"Traceback" not in output


DEAF = f"""{TELL}
import time
def main(context):
    context.ready()
    word = "ready"
    while True:
        try:
            tell(word)
            while True:
                time.sleep(0.01)  # a signal between two of its steps must not be slept over
        except BaseException:
            word = "stopping"
"""


@pytest.mark.uncovered
def test_a_second_ctrl_c_does_not_wait(home: Home, told: Told) -> None:
    """Bounded, whatever the program does."""
    home.program("app.py", DEAF)
    with running(home, "app.py", "--grace-period", "60") as process:
        assert told.wait() == "ready"
        process.send_signal(signal.SIGINT)
        assert told.wait() == "stopping"
        process.send_signal(signal.SIGINT)
        status, _, err = finish(process)
    assert status != 0
    assert "a second signal came, SIGINT" in err


def test_what_its_supervisor_has_set_stays(home: Home) -> None:
    """Descriptors, directory, environment: whoever started it did that on purpose."""
    home.environment |= {"NOTIFY_SOCKET": f"{home.directory}/notify", "WATCHDOG_USEC": "10000000"}
    home.program(
        "app.py",
        "import os\ndef main(c):\n"
        "    print(os.environ.get('NOTIFY_SOCKET'), os.read(int(os.environ['FD']), 9))\n",
    )
    reading, writing = os.pipe()
    os.write(writing, b"passed")
    home.environment["FD"] = str(reading)
    done = home.forkfirst("run", "app.py", pass_fds=(reading,))
    os.close(reading)
    os.close(writing)
    assert done.out.endswith("b'passed'\n")


def test_it_may_have_a_log(home: Home, told: Told) -> None:
    """Then its output goes there, and can be rotated."""
    home.program("app.py", f"{WAITS}")
    with running(home, "app.py", "--log", "own.log") as process:
        assert told.wait() == "ready"
        assert home.forkfirst("rotate", "app").status == 0
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (0, "", "")
    assert (home.directory / "own.log").read_text() == "stopped\n"


def test_only_its_output_holds_the_log(home: Home, told: Told) -> None:
    """One more descriptor would keep every old log on the disk after it was removed."""
    home.program("app.py", WAITS)
    with running(home, "app.py", "--log", "own.log") as process:
        assert told.wait() == "ready"
        links = {one.name: one.readlink() for one in Path(f"/proc/{process.pid}/fd").iterdir()}
        log = home.directory / "own.log"
        assert {fd for fd, file in links.items() if file == log} == {"1", "2"}


def test_without_a_log_there_is_nothing_to_show_or_rotate(home: Home, told: Told) -> None:
    """One line that says where its output goes."""
    home.program("app.py", WAITS)
    with running(home, "app.py"):
        assert told.wait() == "ready"
        for command in ("logs", "rotate"):
            done = home.forkfirst(command, "app")
            assert done.status != 0
            assert "goes to whoever supervises it" in done.err


def test_stop_ends_it_and_nothing_else(home: Home, told: Told) -> None:
    """Its session is that of the person, with their shell in it."""
    home.program("app.py", WAITS)
    with running(home, "app.py") as process, home.open("sleep", "1000") as other:
        try:
            assert told.wait() == "ready"
            home.stop("app")
            assert process.wait(PATIENCE) == 0
            assert other.poll() is None
        finally:
            other.kill()


def test_a_restart_is_its_supervisors(home: Home, told: Told) -> None:
    """64: a daemon in its place would be a surprise."""
    home.program("app.py", WAITS)
    with running(home, "app.py"):
        assert told.wait() == "ready"
        done = home.forkfirst("restart", "app")
        assert done.status == 64
        assert 'cannot restart "app": it runs in the foreground' in done.err
        assert home.status("app")["state"] == "ready"


def test_it_is_not_run_twice(home: Home, told: Told) -> None:
    """Daemon or foreground: one lock."""
    home.program("app.py", WAITS)
    with running(home, "app.py") as process:
        assert told.wait() == "ready"
        for command in ("run", "start"):
            done = home.forkfirst(command, "app.py")
            assert (done.status, done.out) == (75, "")
            assert f"already running (pid {process.pid})" in done.err


# -- process 1 ------------------------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a pid namespace")
CONTAINER = ("unshare", "--fork", "--kill-child", "--pid", "--mount-proc")
SAYS = "app: this is process 1, so there is nothing to detach from: running in the foreground\n"


@pytest.mark.real
@as_root
@pytest.mark.parametrize("end", ["return 7", "raise SystemExit(7)"])
@pytest.mark.parametrize("command", ["start", "run"])
def test_as_process_1_it_stays_and_says_so(home: Home, command: str, end: str) -> None:
    """A container whose first process detaches is a container that is gone."""
    home.program("app.py", f"def main(context):\n    context.ready()\n    {end}\n")
    done = home.run(*CONTAINER, *home.words(command, "app.py"))
    assert done.status == 7
    assert done.err == (SAYS if command == "start" else "")
    assert home.list_processes() == {}
    assert home.list_files() == []


@pytest.mark.real
@as_root
def test_process_1_tells_a_death_by_signal_as_a_shell_does(home: Home) -> None:
    """128 + n: a process 1 cannot die of most signals itself."""
    home.program("app.py", "import os\ndef main(c):\n    c.ready()\n    os.kill(os.getpid(), 9)\n")
    done = home.run(*CONTAINER, *home.words("run", "app.py"))
    assert done.status == 137


@pytest.mark.real
@as_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_1_passes_signals_on(home: Home, told: Told, number: signal.Signals) -> None:
    """`docker stop` is a SIGTERM to process 1, which the kernel would otherwise drop."""
    home.program("app.py", WAITS)
    with running(home, "app.py", before=CONTAINER) as process:
        assert told.wait() == "ready"
        first = find_first_process(home, process.pid)
        os.kill(first, number)
        assert finish(process)[:2] == (0, "stopped\n")
    assert home.list_processes() == {}


@pytest.mark.real
@as_root
def test_process_1_passes_other_signals_on_too(home: Home, told: Told) -> None:
    """SIGUSR1, SIGHUP, real-time ones: whatever the program listens to."""
    home.program(
        "app.py",
        f"{TELL}import signal\ndef main(context):\n"
        "    for n in (signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3):\n"
        "        signal.signal(n, lambda n, _: tell(f'heard {n}'))\n"
        "    context.ready()\n    tell('ready')\n    context.wait_stopping_blocking()\n",
    )
    with running(home, "app.py", before=CONTAINER) as process:
        assert told.wait() == "ready"
        first = find_first_process(home, process.pid)
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3):
            os.kill(first, number)
            assert told.wait() == f"heard {int(number)}"
        os.kill(first, signal.SIGTERM)
        finish(process)


@pytest.mark.real
@as_root
def test_process_1_reaps_every_orphan(home: Home, told: Told) -> None:
    """Zombies of a container that runs for a year fill its table of processes."""
    home.program(
        "app.py",
        f"{TELL}import os, subprocess\nasync def main(context):\n"
        "    reading, writing = os.pipe()\n"
        "    for _ in range(20):\n"
        # The middle one leaves at once, so its child is an orphan; the pipe ends with the last.
        "        subprocess.run(['sh', '-c', 'true & exit'], pass_fds=(writing,))\n"
        "    os.close(writing)\n    os.read(reading, 1)\n"
        "    context.ready()\n    tell('ready')\n    await context.wait_stopping()\n",
    )
    with running(home, "app.py", before=CONTAINER) as process:
        assert told.wait() == "ready"
        first = find_first_process(home, process.pid)
        deadline = time.monotonic() + PATIENCE
        while zombies := count_zombies(first):  # those that ended just now
            assert time.monotonic() < deadline, zombies
        os.kill(first, signal.SIGTERM)
        finish(process)


@pytest.mark.real
@as_root
def test_in_a_container_it_can_be_asked(home: Home, told: Told) -> None:
    """`docker exec NAME forkfirst status app`; here the files are shared, the pids are not."""
    home.program("app.py", WAITS)
    with running(home, "app.py", before=CONTAINER) as process:
        assert told.wait() == "ready"
        first = find_first_process(home, process.pid)
        enter = ("nsenter", "--target", first, "--pid", "--mount")
        done = home.run(*enter, *home.words("status", "app"))
        assert done.status == 0
        assert done.out.startswith("app: ready, pid 2, ")
        # Who asks is in there too, and so ends with process 1: before or after it has said so.
        assert home.run(*enter, *home.words("stop", "app")).status in {0, -signal.SIGKILL}
        assert finish(process)[0] == 0


@pytest.mark.real
@as_root
def test_process_1_holds_nothing_of_the_service(home: Home, told: Told) -> None:
    """Who comes to a listener that a reload has closed must hear of it, and not wait for ever."""
    home.program("app.py", WAITS)
    words = ("app.py", "--log", "own.log", "--listen", "127.0.0.1:0", "--workers", 1)
    with running(home, *words, before=CONTAINER) as process:
        assert told.wait() == "ready"
        first = find_first_process(home, process.pid)
        assert {one.name for one in Path(f"/proc/{first}/fd").iterdir()} == {"0", "1", "2"}
        os.kill(first, signal.SIGTERM)
        assert finish(process)[0] == 0


def find_first_process(home: Home, outer: int) -> int:
    """Return, as seen from here, the process that is 1 in there."""
    for pid in home.list_processes():
        text = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in text.splitlines())
        if fields["NSpid"].split()[1:] == ["1"] and pid != outer:
            return pid
    raise AssertionError


def count_zombies(parent: int) -> int:
    count = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # gone meanwhile
        count += (state, ppid) == ("Z", str(parent))
    return count


def test_listeners_are_there_in_the_foreground_too(home: Home, told: Told) -> None:
    """Opened before the program is loaded, gone with it."""
    path = home.directory / "web"
    text = f"import sys\nsys.path.insert(0, {str(PROGRAMS)!r})\nimport daemons\n"
    home.program(
        "app.py",
        f"{text}async def main(c):\n    import asyncio\n"
        "    await asyncio.start_server(daemons.echo, sock=c.listener('web'))\n"
        "    c.ready()\n    daemons.tell('ready')\n    await c.wait_stopping()\n",
    )
    with running(home, "app.py", "--listen", f"web=unix:{path}") as process:
        assert told.wait() == "ready"
        assert talk(str(path)) == b"hello\n"
        process.send_signal(signal.SIGTERM)
        assert finish(process)[0] == 0
    assert not path.exists()
