"""A start that fails says why, with a status of its own, and leaves nothing at all.

Each test looks in the very moment in which the command has ended: no process of it runs, and every
file is as it was before.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.service_home import NOBODY, PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Done, Home

LATE_LAUNCHER = PROGRAMS / "late_launcher.py"
FAILED = "the program failed before it was ready"


def start_in_vain(home: Home, *words: object, **options: Any) -> Done:
    """Run a start that must fail and leave nothing."""
    before = home.list_files()
    done = home.forkfirst("start", *words, **options)
    assert (home.list_processes(), home.list_files()) == ({}, before), done
    assert done.out == ""
    assert done.status != 0
    return done


def last_line(done: Done) -> str:
    return done.err.splitlines()[-1]


# -- the target -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nosuch.py:main", "there is no file {0}/nosuch.py\n"),
        ("nosuch.py", "there is no file {0}/nosuch.py\n"),
        ("no/such.py:main", "there is no file {0}/no/such.py: there is no directory {0}/no\n"),
        ("nosuch:main", "there is no module 'nosuch'"),
        ("os.nosuch:main", "there is no module 'os.nosuch'"),
        ("app.py:nosuch", "app.py has no 'nosuch'"),
        ("app:nosuch", "app has no 'nosuch'"),
        ("app.py:number", "'number' in"),
        ("app.py:greedy", "greedy() needs a, b"),
    ],
)
def test_a_target_that_is_not_found(home: Home, target: str, said: str) -> None:
    """66, and never a traceback of ours: it is a mistake of the command line."""
    home.program("app.py", "number = 3\nasync def greedy(a, b): pass\n")
    done = start_in_vain(home, target, "--name", "app")
    assert done.status == 66
    assert done.err.startswith('forkfirst: cannot start "app": ')
    assert said.format(home.directory) in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["nosuch", "./nosuch", "/dev/null", "/dev"])
def test_a_command_that_is_not_found(home: Home, command: str) -> None:
    """66, before anything was made."""
    done = start_in_vain(home, "--name", "app", "--", command)
    assert done.status == 66
    assert done.err.startswith('forkfirst: cannot start "app": cannot run ')
    assert f"{command.removeprefix('./')}: no such executable" in done.err


def test_a_command_that_cannot_be_executed(home: Home) -> None:
    """What only the kernel knows: the program that its first line names is not there."""
    home.program("run", "#!/nosuch/interpreter\n").chmod(0o755)
    done = start_in_vain(home, "--name", "app", "--", "./run")
    assert done.status == 66
    assert f"{home.directory}/run cannot be executed: no such file or directory" in done.err


# -- the program ----------------------------------------------------------------------------------

FAULTS = {
    "import error": ("import nosuch\nasync def main(): pass\n", "No module named 'nosuch'"),
    "syntax error": ("async def main(:\n", "SyntaxError: invalid syntax"),
    "an error in the module": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "an error in main": ("async def main(context):\n    1 / 0\n", "ZeroDivisionError"),
    "an error in a plain main": ("def main(context):\n    1 / 0\n", "ZeroDivisionError"),
    "an error in the first step": ("async def main():\n    1 / 0\n", "ZeroDivisionError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_program_that_raises_before_it_is_ready(home: Home, fault: str) -> None:
    """70, with its own traceback on the terminal: from its first frame, and none of ours."""
    text, raised = FAULTS[fault]
    path = home.program("app.py", text)
    done = start_in_vain(home, "app.py")
    assert done.status == 70
    assert raised in done.err
    files = re.findall(r'File "(.*?)"', done.err)
    assert files
    assert set(files) == {str(path)}
    size = len(done.err.encode()) - len(last_line(done).encode()) - 1
    assert last_line(done) == (
        f'forkfirst: cannot start "app": {FAILED} ({size} bytes of its output above)'
    )


@pytest.mark.parametrize("status", [3, 1, 255])
@pytest.mark.parametrize("where", ["module", "main"])
def test_a_program_that_exits_before_it_is_ready(home: Home, status: int, where: str) -> None:
    """Its own status: that is what it wanted to say."""
    ends = {
        "module": f"raise SystemExit({status})",
        "main": f"async def main(context):\n    raise SystemExit({status})",
    }
    home.program("app.py", ends[where])
    done = start_in_vain(home, "app.py")
    assert done.status == status
    said = f"the program ended with status {status} before it was ready"
    assert done.err == f'forkfirst: cannot start "app": {said}\n'


@pytest.mark.parametrize("end", ["return", "raise SystemExit", "raise SystemExit(0)"])
def test_a_program_that_ends_well_before_it_is_ready(home: Home, end: str) -> None:
    """70: it ended, so it does not run, whatever it thinks of itself."""
    home.program("app.py", f"async def main(context):\n    {end}\n")
    done = start_in_vain(home, "app.py")
    assert done.status == 70
    said = "the program ended with status 0 before it was ready"
    assert done.err == f'forkfirst: cannot start "app": {said}\n'


def test_a_text_given_to_exit_is_shown(home: Home) -> None:
    """As Python itself does, with status 1."""
    home.program("app.py", "import sys\nasync def main(context):\n    sys.exit('no database')\n")
    done = start_in_vain(home, "app.py")
    assert done.status == 1
    assert done.err.startswith("no database\nforkfirst: cannot start")


def test_a_command_that_ends_before_it_is_ready(home: Home) -> None:
    """Its own status and its own output."""
    done = start_in_vain(home, "--name", "app", "--", "sh", "-c", "echo no config >&2; exit 78")
    assert done.status == 78
    assert done.err == (
        'no config\nforkfirst: cannot start "app": the program ended with status 78 before it was '
        "ready (10 bytes of its output above)\n"
    )


def test_a_death_by_signal_shows_the_fault_handlers_stack(home: Home) -> None:
    """128 + n, and the Python line that did it."""
    home.program(
        "app.py",
        "import os, signal\ndef main(context):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
    )
    done = start_in_vain(home, "app.py")
    assert done.status == 128 + signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.err
    assert f'File "{home.directory}/app.py", line 3 in main' in done.err
    assert "the program was killed by SIGSEGV before it was ready" in last_line(done)


def test_a_death_that_nothing_could_catch_is_told(home: Home) -> None:
    """SIGKILL, as the kernel sends it when memory is short."""
    home.program("app.py", "import os\ndef main(context):\n    os.kill(os.getpid(), 9)\n")
    done = start_in_vain(home, "app.py")
    assert done.status == 137
    said = "the program was killed by SIGKILL before it was ready"
    assert done.err == f'forkfirst: cannot start "app": {said}\n'


def test_only_the_end_of_much_output_is_shown(home: Home) -> None:
    """A terminal is no place for a megabyte; the message says how much there was."""
    text = "print('x' * 99_999)\nprint('the last line')\nraise SystemExit(4)\n"
    home.program("app.py", text)
    done = start_in_vain(home, "app.py")
    assert len(done.err) < 40_000
    assert "x\nthe last line\nforkfirst: " in done.err
    assert last_line(done).endswith("(the last 32.0 KiB of 97.7 KiB of its output above)")


def test_the_output_that_is_shown_begins_with_a_whole_line(home: Home) -> None:
    """Where lines are of a usual length: a piece of one looks like something else."""
    home.program("app.py", "for n in range(9_999): print('line', n)\nraise SystemExit(4)\n")
    done = start_in_vain(home, "app.py")
    assert re.match(r"line \d+\n", done.err)


def test_a_listener_that_was_not_declared_is_said_with_what_to_do(home: Home) -> None:
    """The error is raised in the program, and is read in its traceback."""
    home.program("app.py", "async def main(context):\n    context.listener('web')\n")
    done = start_in_vain(home, "app.py")
    asks = """: "app" asks for the listener 'web', which was not declared; declared: none\n"""
    assert f"{asks}give it with --listen web=ADDRESS\n" in done.err


def test_what_the_program_had_started_is_ended_too(home: Home) -> None:
    """In its session, in whatever group: nobody would know of it."""
    home.program(
        "app.py",
        "import os, subprocess, time\n"
        "async def main(context):\n"
        "    subprocess.Popen(['sleep', '1000'])\n"
        "    subprocess.Popen(['sleep', '1000'], process_group=0)\n"
        "    if not os.fork():\n        time.sleep(1000)\n"
        "    1 / 0\n",
    )
    assert start_in_vain(home, "app.py").status == 70


def test_a_log_that_was_there_before_is_kept(home: Home) -> None:
    """And only what this start wrote is shown."""
    home.program("app.py", "async def main(context):\n    print('first')\n    context.ready()\n")
    home.start("app.py")
    home.wait_alone()
    home.program("app.py", "print('second')\n1 / 0\n")
    before = home.list_files()
    done = home.forkfirst("start", "app.py")
    assert (done.status, home.list_processes(), home.list_files()) == (70, {}, before)
    assert done.err.startswith("second\nTraceback")
    assert home.log("app").startswith("first\nsecond\nTraceback")


def test_a_failed_start_does_not_forget_how_the_service_was_started(home: Home) -> None:
    """It can be mended and restarted by its name."""
    home.program("app.py", "async def main(context):\n    context.ready()\n")
    home.start("app.py")
    home.wait_alone()
    home.program("app.py", "1 / 0")
    assert home.forkfirst("restart", "app").status == 70
    home.program("app.py", "async def main(context):\n    context.ready()\n")
    assert home.forkfirst("restart", "app").status == 0


# -- not ready in time ----------------------------------------------------------------------------

HANGS_HERE = """
import os, re, time, threading, asyncio
LONG = re.compile("(a*)*b")
def tell():
    with open(os.environ["HANGS"], "w") as fifo:
        fifo.write("here")
"""
WAITS = """
async def main(context):
    await wait_for_the_database()
async def wait_for_the_database():
    asyncio.get_running_loop().call_soon(tell)
    await asyncio.Event().wait()
"""
SLEEPS = """
async def main(context):
    compute()
def compute():
    tell()
    time.sleep(1000)
"""
COMPUTES = """
async def main(context):
    compute()
def compute():
    tell()
    while True: pass
"""
JOINS = """
async def main(context):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
def work():
    tell()
    threading.Event().wait()
"""
HANGS = {
    "a loop that waits": (WAITS, "in wait_for_the_database"),
    "a loop that is blocked": (SLEEPS, "in compute"),
    "a loop that computes": (COMPUTES, "in compute"),
    "a plain function": ("def main(context):\n    tell()\n    time.sleep(1000)\n", "in main"),
    "an import": ("tell()\ntime.sleep(1000)\n", "in <module>"),
    "a thread that is waited for": (JOINS, "in work"),
}


def hang(home: Home, text: str, seconds: str) -> Done:
    """Start what hangs, and begin to count the *seconds* when it does."""
    home.environment["HANGS"] = str(home.directory / "hangs")
    os.mkfifo(home.directory / "hangs")
    path = home.program("app.py", HANGS_HERE + text)
    done = home.run(sys.executable, LATE_LAUNCHER, path, seconds)
    assert (home.list_processes(), home.list_files()) == ({}, [])
    return done


@pytest.mark.parametrize("hang_", HANGS)
def test_not_ready_in_time_shows_where_it_hangs(home: Home, hang_: str) -> None:
    """124, as timeout(1) has it, and the stack of the very line."""
    text, frame = HANGS[hang_]
    done = hang(home, text, "0.05s")
    assert done.status == 124
    assert frame in done.err
    assert 'cannot start "app": not ready after 0.05 s (' in last_line(done)


@pytest.mark.uncovered
def test_not_ready_in_time_in_c_code_that_holds_the_interpreter(home: Home) -> None:
    """Nobody can answer then; the fault handler can."""
    text = "async def main(context):\n    tell()\n    LONG.match('a' * 64)\n"
    done = hang(home, text, "0.05")
    assert done.status == 124
    assert "Fatal Python error: Aborted" in done.err
    assert f'File "{home.directory}/app.py", line 9 in main' in done.err


def test_what_to_do_about_a_service_that_is_not_ready_is_said(home: Home) -> None:
    """And how long it was waited for."""
    home.program(
        "app.py", "import asyncio\nasync def main(context):\n    await asyncio.Event().wait()\n"
    )
    done = start_in_vain(home, "app.py", "--ready-timeout", "100ms")
    assert done.status == 124
    *_, line, hint = done.err.splitlines()
    assert line.startswith('forkfirst: cannot start "app": not ready after 0.1 s')
    assert hint == "  give it more time with --ready-timeout, or see above where it waits"


def test_a_command_that_is_not_ready_in_time(home: Home) -> None:
    """And its whole group is ended."""
    words = ("--ready-timeout", "0.3", "--settle", "60", "--", "sh", "-c", "sleep 1000; true")
    done = start_in_vain(home, "--name", "app", *words)
    assert done.status == 124


# -- the machine ----------------------------------------------------------------------------------


def test_a_port_in_use_says_by_whom(home: Home) -> None:
    """The pid and its name: what one would look for next."""
    home.program("app.py", "async def main(context): context.ready()\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = start_in_vain(home, "app.py", "--listen", f"web=127.0.0.1:{port}")
    assert done.status == 69
    assert re.fullmatch(
        rf'forkfirst: cannot start "app": cannot listen on 127.0.0.1:{port}: '
        rf"address in use by pid {os.getpid()} \(.+\)\n",
        done.err,
    )


def test_a_path_in_use_says_by_whom(home: Home) -> None:
    """And a live socket is never stolen."""
    home.program("app.py", "async def main(context): context.ready()\n")
    path = f"{home.directory}/web"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        done = start_in_vain(home, "app.py", "--listen", f"web=unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    assert done.status == 69
    assert f"{path}: address in use by pid {os.getpid()} (" in done.err


def test_an_address_of_another_machine(home: Home) -> None:
    """TEST-NET-1 is nobody's."""
    home.program("app.py", "async def main(context): context.ready()\n")
    done = start_in_vain(home, "app.py", "--listen", "web=192.0.2.1:0")
    assert done.status == 69
    assert "not an address of this machine" in done.err


def test_listeners_that_were_opened_before_the_failing_one_are_closed(home: Home) -> None:
    """Their paths as well."""
    home.program("app.py", "async def main(context): context.ready()\n")
    path = home.directory / "first"
    words = ("--listen", f"a=unix:{path}", "--listen", "b=192.0.2.1:1")
    assert start_in_vain(home, "app.py", *words).status == 69
    assert not path.exists()


@pytest.mark.parametrize(
    ("flag", "value", "status", "said"),
    [
        ("--log", "/proc/nosuch/app.log", 78, "make directory /proc/nosuch"),
        ("--log", "/dev/null/app.log", 73, "make directory /dev/null"),
        ("--log", "/etc", 73, "the log /etc"),
        ("--pid-file", "/nosuch/app.pid", 73, "/nosuch/app.pid"),
        ("--pid-file", "/tmp/app.pid", 77, "/tmp"),  # noqa: S108 - refused, because others may write there
        ("--chdir", "/nosuch", 78, "change directory to /nosuch: no such file or directory"),
        ("--chdir", "/dev/null", 73, "change directory to /dev/null: not a directory"),
    ],
)
def test_a_place_that_cannot_be_used(
    home: Home, flag: str, value: str, status: int, said: str
) -> None:
    """One line that says which, and why."""
    home.program("app.py", "async def main(context): context.ready()\n")
    done = start_in_vain(home, "app.py", flag, value)
    assert done.err.startswith('forkfirst: cannot start "app": cannot ')
    assert said in done.err
    assert done.status == status


def test_a_state_directory_that_others_may_write_is_refused(home: Home) -> None:
    """Whoever can put names there could put a pid file or a socket there."""
    home.program("app.py", "async def main(context): context.ready()\n")
    (home.state / "run").mkdir(parents=True)
    (home.state / "run").chmod(0o777)
    done = start_in_vain(home, "app.py")
    assert done.status == 77
    assert f"cannot trust directory {home.state}/run" in done.err


def test_a_pid_file_that_is_a_link_is_refused(home: Home) -> None:
    """Somebody put it there: what it leads to is neither read nor written."""
    home.program("app.py", "async def main(context): context.ready()\n")
    precious = home.program("precious", "mine")
    (home.state / "run").mkdir(parents=True, mode=0o700)
    (home.state / "run" / "app.pid").symlink_to(precious)
    done = start_in_vain(home, "app.py")
    assert done.status == 77
    assert "symbolic link" in done.err
    assert precious.read_text() == "mine"


@pytest.mark.uncovered
@pytest.mark.parametrize("size", [0, 5, 40])
def test_a_full_disk(home: Home, size: int) -> None:
    """74, wherever the write is that fails: the pid, the record or the log."""
    home.program("app.py", "async def main(context): context.ready()\n")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = start_in_vain(home, "app.py", preexec_fn=fill)
    assert done.status == 74
    assert done.err.startswith('forkfirst: cannot start "app": cannot ')


@pytest.mark.uncovered
@pytest.mark.parametrize("limit", range(6, 24))
def test_no_descriptors_left(home: Home, limit: int) -> None:
    """71 and the cause, wherever the last one is taken; or all that is needed was there."""
    home.program("app.py", "async def main(c):\n    c.ready()\n    await c.wait_stopping()\n")

    def starve() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    words = ("app.py", "--listen", "web=127.0.0.1:0")
    done = home.forkfirst("start", *words, preexec_fn=starve)
    if done.status == 0:
        home.stop("app")
    else:
        assert done.status == 71
        assert "too many open files" in done.err.lower()
        # asyncio's loop is not ashamed of its own half-made state.
        assert "Traceback" not in done.err or done.err.startswith("Exception ignored in")
        assert home.list_files() == []
    assert home.list_processes() == {}


def test_a_runtime_that_is_not_installed(home: Home) -> None:
    """78, and how to install it; not a traceback of ours."""
    home.program("app.py", "async def main(): pass\n")
    home.program("uvloop.py", "raise ModuleNotFoundError('gone', name='uvloop')\n")
    done = start_in_vain(home, "app.py", "--runtime", "uvloop")
    assert done.status == 78
    assert done.err == (
        'forkfirst: cannot start "app": cannot run on uvloop: it is not installed\n'
        "  pip install 'forkfirst[uvloop]'\n"
    )


# -- another user's limits: as a real other user --------------------------------------------------


@pytest.fixture
def nobodys(home: Home) -> Home:
    """A home of a user who is not root."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    home.program("app.py", "async def main(context): context.ready()\n")
    os.chown(home.directory, NOBODY, NOBODY)
    return home


@pytest.mark.real
def test_another_user_can_start_and_stop(nobodys: Home) -> None:
    """What the tests below take for granted."""
    home = nobodys
    home.program("app.py", "async def main(c):\n    c.ready()\n    await c.wait_stopping()\n")
    home.start("app.py", uid=NOBODY)
    home.stop("app", uid=NOBODY)
    assert home.list_processes() == {}


@pytest.mark.real
@pytest.mark.parametrize("which", ["state", "log"])
def test_a_directory_that_may_not_be_written(nobodys: Home, which: str) -> None:
    """77, and which directory."""
    home = nobodys
    closed = home.directory / "closed"
    closed.mkdir(mode=0o755)
    words = ["--log", f"{closed}/app.log"]
    if which == "state":
        home.environment["FORKFIRST_STATE_DIR"] = f"{closed}/state"
        words = []
    done = home.forkfirst("start", "app.py", *words, uid=NOBODY)
    assert done.status in {73, 77}
    assert f"{closed}/" in done.err
    assert "ermission denied" in done.err
    assert list(closed.iterdir()) == []
    assert (home.list_processes(), home.list_files()) == ({}, [])


@pytest.mark.uncovered
@pytest.mark.real
@pytest.mark.parametrize("allowed", [0, 1])
def test_a_refused_fork(nobodys: Home, allowed: int) -> None:
    """71: the first fork, or the second; the kernel's EAGAIN and what to do about it."""
    home = nobodys
    uid = 1_000_000 + os.getpid()  # nobody has other processes, and the limit counts all of a user
    os.chown(home.directory, uid, uid)
    limit = ("prlimit", f"--nproc={1 + allowed}")
    done = home.run(*limit, *home.words("start", "app.py"), uid=uid)
    assert (done.status, done.out) == (71, "")
    assert "fork" in done.err
    assert "ulimit -u" in done.err
    assert (home.list_processes(), home.list_files()) == ({}, [])


@pytest.mark.real
def test_a_tmpfs_that_is_full(home: Home) -> None:
    """A disk that is really full, and not a limit that says so."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    home.program("app.py", "async def main(context): context.ready()\n")
    home.state.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k none {home.state} && "
        f"{{ cat /dev/zero > {home.state}/filler 2>/dev/null; "
        '"$@"; status=$?; '
        f"find {home.state} -type f >&2; exit $status; }}"
    )
    words = ("unshare", "--mount", "sh", "-c", script, "sh", *home.words("start", "app.py"))
    done = home.run(*words)
    assert done.status == 74
    line, left = done.err.splitlines()
    assert "no space left on device" in line
    assert left == f"{home.state}/filler"
    assert home.list_processes() == {}
