"""Where the output of a service goes, and that no line of it is lost."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.service_home import PATIENCE, PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Home, Told

# Says each line that it is told to, and that it has said it.
SAYS = """
import os
def main(context):
    context.ready()
    with open(os.environ["SAY"]) as fifo:
        for line in iter(fifo.readline, ""):
            exec(line, globals())
            with open(os.environ["TELL"], "w") as told:
                told.write("done\\n")
"""


class Puppet:
    """A service that does what it is told, line by line."""

    def __init__(self, home: Home, told: Told, *words: object) -> None:
        path = home.directory / "say"
        os.mkfifo(path)
        home.environment["SAY"] = str(path)
        home.program("app.py", SAYS)
        self._fd = os.open(path, os.O_RDWR)
        self._told = told
        home.start("app.py", *words)

    def do(self, line: str) -> None:
        """Have it do *line*, and wait until that is done."""
        os.write(self._fd, line.encode() + b"\n")
        assert self._told.wait() == "done"

    def close(self) -> None:
        """Tell it nothing more."""
        os.close(self._fd)


def read_all(home: Home, name: str = "app", keep: int = 100) -> list[str]:
    """Return every line of the log and of its older files, the oldest first."""
    paths = [home.state / f"{name}.log.{n}" for n in range(keep, 0, -1)]
    paths.append(home.state / f"{name}.log")
    return [line for path in paths if path.exists() for line in path.read_text().splitlines()]


def test_everything_that_is_written_is_in_the_log(home: Home) -> None:
    """By print, on both streams, below Python, by C code, and by what the service runs."""
    home.program(
        "app.py",
        "import ctypes, os, subprocess, sys\n"
        "async def main(c):\n"
        "    print('printed')\n"
        "    print('to stderr', file=sys.stderr)\n"
        "    os.write(1, b'written\\n')\n"
        "    ctypes.CDLL(None).puts(b'by C code')\n"
        "    ctypes.CDLL(None).fflush(None)\n"
        "    subprocess.run(['echo', 'by another program'])\n"
        "    c.ready()\n",
    )
    home.start("app.py")
    home.wait_alone()
    assert home.log("app").splitlines() == [
        "printed",
        "to stderr",
        "written",
        "by C code",
        "by another program",
    ]


def test_a_line_is_in_the_log_as_soon_as_it_is_ended(home: Home, told: Told) -> None:
    """Not when a buffer is full: a daemon that says little would say nothing for days."""
    puppet = Puppet(home, told)
    puppet.do("print('one')")
    assert home.log("app") == "one\n"
    puppet.do("print('two', end='')")
    assert home.log("app") == "one\n"
    puppet.do("print(' and a half')")
    assert home.log("app") == "one\ntwo and a half\n"
    puppet.close()


def test_what_is_not_ended_is_written_at_the_end(home: Home) -> None:
    """The last words of a program, without a newline, are words."""
    home.program("app.py", "def main(c):\n    c.ready()\n    print('last words', end='')\n")
    home.start("app.py")
    home.wait_alone()
    assert home.log("app") == "last words"


def test_the_log_is_utf_8_whatever_the_locale(home: Home) -> None:
    """A log must not depend on the shell that happened to start the service."""
    home.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    home.program("app.py", "def main(c):\n    print('gr\\u00fc\\u00df \\udcff')\n    c.ready()\n")
    home.start("app.py")
    home.wait_alone()
    assert home.log("app") == "grüß \\udcff\n"


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_the_log_is_for_its_owner_and_to_read_for_its_group(home: Home, umask: int) -> None:
    """0640, whatever the caller's umask is; older files too."""
    home.start(f"{PROGRAMS / 'daemons.py'}:wait", "--name", "app", umask=umask)
    assert home.forkfirst("rotate", "app").status == 0
    for name in ("app.log", "app.log.1"):
        assert (home.state / name).stat().st_mode & 0o777 == 0o640


def test_a_second_start_appends(home: Home) -> None:
    """What the last run said is what one wants to read after a crash."""
    home.program("app.py", "def main(c):\n    print('line')\n    c.ready()\n")
    for _ in range(2):
        home.start("app.py")
        home.wait_alone()
    assert home.log("app") == "line\nline\n"


def test_rotation_by_size_loses_no_line(home: Home) -> None:
    """Thousands of lines through dozens of files, in order, each once."""
    home.program(
        "app.py",
        "def main(c):\n    c.ready()\n    for n in range(5000):\n        print(f'line {n:06}')\n",
    )
    home.start("app.py", "--log-size", "2KiB", "--log-keep", "99")
    home.wait_alone()
    assert read_all(home) == [f"line {n:06}" for n in range(5000)]
    sizes = [path.stat().st_size for path in home.state.glob("app.log*")]
    assert len(sizes) > 20
    assert max(sizes) <= 2048 + 12


def test_rotation_on_request_loses_no_line(home: Home, told: Told) -> None:
    """While several threads write, and C code does."""
    home.program(
        "app.py",
        "import os, threading\n"
        "def write(name):\n"
        "    for n in range(2000):\n"
        "        print(f'{name} {n:05}') if name != 'c' else os.write(1, b'c %05d\\n' % n)\n"
        "def main(c):\n"
        "    c.ready()\n"
        "    threads = [threading.Thread(target=write, args=(name,)) for name in 'abc']\n"
        "    open(os.environ['TELL'], 'w').write('go\\n')\n"
        "    for t in threads: t.start()\n"
        "    for t in threads: t.join()\n"
        "    open(os.environ['TELL'], 'w').write('end\\n')\n"
        "    c.wait_stopping_blocking()\n",
    )
    home.start("app.py", "--log-keep", "50")
    assert told.wait() == "go"
    for _ in range(5):
        assert home.forkfirst("rotate", "app").status == 0
    assert told.wait() == "end"
    assert sorted(read_all(home)) == sorted(f"{name} {n:05}" for name in "abc" for n in range(2000))


def test_older_files_beyond_the_number_are_removed(home: Home) -> None:
    """The newest are kept."""
    home.program("app.py", "def main(c):\n    c.ready()\n    for n in range(100): print(n * 'x')\n")
    home.start("app.py", "--log-size", "1000", "--log-keep", "2")
    home.wait_alone()
    assert sorted(path.name for path in home.state.glob("app.log*")) == [
        "app.log",
        "app.log.1",
        "app.log.2",
    ]
    assert (home.state / "app.log").read_text().endswith(99 * "x" + "\n")


def test_a_log_that_somebody_moved_away_is_begun_anew(home: Home, told: Told) -> None:
    """As logrotate(8) does it: move, then tell."""
    puppet = Puppet(home, told)
    puppet.do("print('before')")
    (home.state / "app.log").rename(home.state / "moved")
    puppet.do("print('between')")
    assert home.forkfirst("rotate", "app").status == 0
    puppet.do("print('after')")
    assert (home.state / "moved").read_text() == "before\nbetween\n"
    assert home.log("app") == "after\n"
    puppet.close()


def read_lines(stream: int, count: int) -> list[str]:
    """Read *count* lines from a follower."""
    data = b""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while data.count(b"\n") < count:
        assert poll.poll(max(0.0, deadline - time.monotonic()) * 1000), data
        chunk = os.read(stream, 65536)
        assert chunk, data
        data += chunk
    return data.decode().splitlines()


def test_logs_f_follows_through_rotations(home: Home, told: Told) -> None:
    """Every line once and in order, also those that came between two looks."""
    puppet = Puppet(home, told)
    puppet.do("print('old')")
    follower = home.open(*home.words("logs", "-f", "app"), stdout=subprocess.PIPE)
    assert follower.stdout is not None
    try:
        assert read_lines(follower.stdout.fileno(), 1) == ["old"]
        for n in range(5):
            puppet.do(f"print('line {n}')")
            assert home.forkfirst("rotate", "app").status == 0
            puppet.do(f"print('new {n}')")
        wanted = [f"{word} {n}" for n in range(5) for word in ("line", "new")]
        assert read_lines(follower.stdout.fileno(), 10) == wanted
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 130
    puppet.close()


def test_the_last_lines_may_be_in_older_files(home: Home) -> None:
    """A rotation a moment ago is no reason to show nothing."""
    home.program(
        "app.py", "def main(c):\n    c.ready()\n    for n in range(60): print('line', n)\n"
    )
    home.start("app.py", "--log-size", "50", "--log-keep", "99")
    home.wait_alone()
    assert home.forkfirst("logs", "-n", "40", "app").out.splitlines() == [
        f"line {n}" for n in range(20, 60)
    ]
    assert len(home.forkfirst("logs", "-n", "1000", "app").out.splitlines()) == 60


def test_logs_f_ends_when_nobody_reads_it(home: Home, told: Told) -> None:
    """`logs -f | head`: without a traceback."""
    puppet = Puppet(home, told)
    puppet.do("print('one')")
    follower = home.open(
        *home.words("logs", "-f", "app"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert follower.stdout is not None
    assert follower.stderr is not None
    read_lines(follower.stdout.fileno(), 1)
    follower.stdout.close()
    puppet.do("print('two')")
    assert follower.wait(PATIENCE) == 141
    assert follower.stderr.read() == b""
    follower.stderr.close()
    puppet.close()


def test_a_full_disk_does_not_stop_the_service_and_is_counted(home: Home, told: Told) -> None:
    """What could not be written is a number in `status`; what can be written is, afterwards."""
    puppet = Puppet(home, told)
    puppet.do("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, -1))")
    puppet.do("print('123456789')")
    puppet.do("print('lost')")
    assert home.status("app")["dropped_bytes"] == 5
    assert "lost     5 bytes of output" in home.forkfirst("status", "app").out
    puppet.do("resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))")
    puppet.do("print('again')")
    assert home.log("app") == "123456789\nagain\n"
    puppet.close()


@pytest.mark.real
def test_a_disk_that_is_really_full_does_not_stop_the_service(home: Home) -> None:
    """A tmpfs of 64 KiB, in a mount namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    full = home.directory / "full"
    full.mkdir()
    home.program(
        "app.py",
        "import os\ndef main(c):\n    for n in range(3000):\n        print(80 * 'x')\n"
        "    c.ready(status='alive')\n    c.wait_stopping_blocking()\n",
    )
    status = " ".join(home.words("status", "app", "--json"))
    script = f'mount -t tmpfs -o size=64k none {full} && "$@" && {status}'
    words = home.words("start", "app.py", "--log", full / "app.log")
    done = home.run("unshare", "--mount", "sh", "-c", script, "sh", *words)
    assert (done.status, done.err) == (0, "")
    assert '"status": "alive"' in done.out
    assert f'"dropped_bytes": {3000 * 81 - 65536}' in done.out
    home.stop("app")


@pytest.mark.parametrize("log", ["/dev/null", "a fifo"])
def test_a_log_need_not_be_a_file(home: Home, log: str) -> None:
    """A device or a fifo with a reader: it is written to, and not rotated."""
    path = log
    reading = -1
    if log == "a fifo":
        path = f"{home.directory}/fifo"
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    home.program(
        "app.py", "def main(c):\n    print('line')\n    c.ready()\n    c.wait_stopping_blocking()\n"
    )
    home.start("app.py", "--log", path, "--log-size", "2")
    assert home.forkfirst("rotate", "app").status == 0
    home.stop("app")
    if reading >= 0:
        assert os.read(reading, 100) == b"line\n"
        os.close(reading)


def test_a_failed_start_shows_what_was_said_through_a_rotation(home: Home) -> None:
    """The terminal has the end of it, whichever file it is in."""
    home.program("app.py", "for n in range(60): print(f'line {n:02}')\n1 / 0\n")
    done = home.forkfirst("start", "app.py", "--log-size", "100", "--log-keep", "9")
    assert done.status == 70
    assert "line 59\nTraceback" in done.err
    assert "ZeroDivisionError" in done.err
    assert (home.list_processes(), home.list_files()) == ({}, [])


def test_a_program_may_close_its_streams(home: Home) -> None:
    """Some do when they think that they are daemons: the service goes on."""
    home.program(
        "app.py",
        "import os, sys\ndef main(c):\n    sys.stdout.close()\n    sys.stderr.close()\n"
        "    os.close(1)\n    c.ready()\n    c.wait_stopping_blocking()\n",
    )
    home.start("app.py")
    assert home.status("app")["state"] == "ready"
    home.stop("app")
    assert home.list_processes() == {}


def test_the_terminals_colours_and_width_are_not_the_logs(home: Home) -> None:
    """It is no terminal: libraries that ask are told so."""
    home.program(
        "app.py",
        "import os\ndef main(c):\n    print([os.isatty(fd) for fd in (0, 1, 2)])\n    c.ready()\n",
    )
    home.start("app.py")
    home.wait_alone()
    assert home.log("app") == "[False, False, False]\n"
