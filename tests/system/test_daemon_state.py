"""What a daemon is to the kernel: the fifteen steps of daemon(7), looked at from outside and in."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.service_home import PATIENCE, PROGRAMS

if TYPE_CHECKING:
    from support.service_home import Home

STATE = PROGRAMS / "own_state.py"
LISTENERS = ("--listen", "web=127.0.0.1:0", "--listen", "other=127.0.0.1:0")


def read_state(home: Home, *words: object, name: str = "main", **options: Any) -> dict[str, Any]:
    """Start the program that looks at itself, and return what it saw."""
    _prepare(home)
    done = home.forkfirst("start", f"{STATE}:{name}", "--name", "app", *words, **options)
    assert done.status == 0, done
    return _read(home)


def read_bare_state(home: Home) -> dict[str, Any]:
    """The same, of `python own_state.py`."""
    _prepare(home)
    assert home.run(sys.executable, STATE).status == 0
    return _read(home)


def _prepare(home: Home) -> None:
    # What measures the tests has descriptors and handlers of its own.
    home.environment = {k: v for k, v in home.environment.items() if not k.startswith("COV")}
    home.environment["STATE"] = str(home.directory / "seen")


def _read(home: Home) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home.directory / "seen").read_text())
    return found


def test_it_is_in_a_session_of_its_own_and_does_not_lead_it(home: Home) -> None:
    """So no terminal is its own, and none that it opens can become so."""
    seen = read_state(home)
    assert seen["session"] not in {os.getsid(0), seen["pid"]}
    assert seen["group"] == seen["session"]
    assert (seen["terminal"], seen["has terminal"]) == (0, False)
    assert not Path(f"/proc/{seen['session']}").exists(), "the leader is gone"


def test_it_is_nobodys_child(home: Home) -> None:
    """It belongs to init, or to whoever adopts orphans: when READY was said, already."""
    home.start(f"{STATE}:main", "--name", "app", "--env", "STATE=/dev/null")
    stat = Path(f"/proc/{home.pid('app')}/stat").read_text().rpartition(")")[2].split()
    parent, session = int(stat[1]), int(stat[3])
    assert parent not in {os.getpid(), session}


def test_it_is_in_the_root_directory_with_its_own_umask(home: Home) -> None:
    """No file system is kept busy; what it makes is for its owner and, to read, for its group."""
    seen = read_state(home)
    assert (seen["directory"], seen["status"]["Umask"]) == ("/", "0027")


def test_directory_and_umask_are_as_asked_for(home: Home) -> None:
    """By flags; the directory relative to where the command is given."""
    (home.directory / "here").mkdir()
    seen = read_state(home, "--chdir", "here", "--umask", "0077")
    assert seen["directory"] == f"{home.directory}/here"
    assert seen["status"]["Umask"] == "0077"


@pytest.mark.parametrize("name", ["main", "main_on_asyncio"])
def test_its_signals_are_those_of_a_fresh_interpreter(home: Home, name: str) -> None:
    """Whatever was blocked or ignored by the caller; those that stop and reload are ours."""
    bare = read_bare_state(home)["status"]
    spoil = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()) - {9, 19})\n"
        "for name in ('HUP', 'USR1', 'CHLD', 'TERM', 'QUIT'):\n"
        "    signal.signal(getattr(signal, f'SIG{name}'), signal.SIG_IGN)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    _prepare(home)
    words = home.words("start", f"{STATE}:{name}", "--name", "app")
    assert home.run(sys.executable, "-c", spoil, *words).status == 0
    seen = _read(home)["status"]
    for field in ("SigBlk", "SigPnd", "ShdPnd", "SigIgn"):
        assert seen[field] == bare[field], field
    ours = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    faults = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}
    assert read_signals(seen["SigCgt"]) == ours | faults | read_signals(bare["SigCgt"])


def read_signals(mask: str) -> set[int]:
    """Return the signals of a mask, without the two that the threads library keeps for itself."""
    bits = int(mask, 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1} - {32, 33}


def test_its_descriptors_are_exactly_those_that_belong_to_it(home: Home) -> None:
    """Nothing of the caller's: a pipe that stays open is a reader who waits for ever."""
    leaked = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    leaked.extend(os.pipe())
    high = os.dup2(leaked[0], 700)
    leaked_pipes = {str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in leaked}
    for fd in (*leaked, high):
        os.set_inheritable(fd, True)  # noqa: FBT003 - its only argument
    try:
        seen = read_state(home, *LISTENERS, close_fds=False)["descriptors"]
    finally:
        for fd in (*leaked, high):
            os.close(fd)
    log = f"{home.state}/app.log"
    assert [seen.pop(fd) for fd in ("0", "1", "2")] == ["/dev/null", log, log]
    files = [link for link in seen.values() if link.startswith("/")]
    sockets = {link for link in seen.values() if link.startswith("socket")}
    pipes = {link for link in seen.values() if link.startswith("pipe")}
    # The lock, which the kernel lists without the name that it was given later; two listeners and
    # the control socket, of which some copies are kept in reserve; the report to the launcher, and
    # what wakes the control thread.
    assert len(files) == 1
    assert files[0].startswith(f"{home.state}/run/")
    assert len(sockets) == 3
    assert len(pipes) == 2
    assert len(files) + len([one for one in seen.values() if one in sockets | pipes]) == len(seen)
    assert not pipes & leaked_pipes


def test_nothing_but_the_standard_streams_is_inherited_by_what_it_runs(home: Home) -> None:
    """A child of the service has neither the lock nor a listener, unless it is passed on."""
    assert read_state(home, *LISTENERS)["inheritable"] == ["0", "1", "2"]


STREAMS = list(
    itertools.chain.from_iterable(itertools.combinations((0, 1, 2), n) for n in range(4))
)


@pytest.mark.parametrize("closed", STREAMS, ids=lambda fds: "".join(map(str, fds)) or "none")
def test_whichever_standard_descriptors_were_closed_it_is_the_same(
    home: Home, closed: tuple[int, ...]
) -> None:
    """cron, inetd and embedded systems start with less than three; no file of ours takes theirs."""
    _prepare(home)
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    script = f'exec "$@" {redirections}'
    words = home.words("start", f"{STATE}:main", "--name", "app", *LISTENERS)
    process = home.open("sh", "-c", script, "sh", *words, stdout=subprocess.DEVNULL)
    assert process.wait(PATIENCE) == 0
    seen = _read(home)
    log = f"{home.state}/app.log"
    assert [seen["descriptors"][fd] for fd in "012"] == ["/dev/null", log, log]
    assert seen["inheritable"] == ["0", "1", "2"]
    assert seen["streams"] == [True, True, True]
    assert seen["stdin"] == ""
    home.stop("app")
    assert home.list_processes() == {}


def test_its_environment_has_nothing_that_was_said_to_others(home: Home) -> None:
    """Of the protocols of a service manager; all else is the caller's wish."""
    home.environment |= {
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDNAMES": "web",
        "LISTEN_PIDFDID": "7",
        "LISTEN_FDS_FIRST_FD": "3",
        "NOTIFY_SOCKET": "/nosuch",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": "1",
        "KEPT": "yes",
    }
    seen = read_state(home)["environment"]
    foreign = [n for n in seen if n.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
    assert (foreign, seen["KEPT"]) == ([], "yes")


def test_its_environment_has_what_was_asked_for(home: Home) -> None:
    """From flags and a file; a flag is over the file, both are over the caller's."""
    home.environment |= {"A": "caller", "B": "caller", "C": "caller"}
    home.program("vars", "# comment\n\nexport A=file\nB='file with spaces'\nD=\"x=y\"\n")
    flags = ("--env", "A=flag", "--env", "E=", "--env-file", "vars")
    seen = read_state(home, *flags)["environment"]
    assert [seen.get(name) for name in "ABCDE"] == ["flag", "file with spaces", "caller", "x=y", ""]


def test_limits_and_priority_are_the_callers(home: Home) -> None:
    """Whoever starts it has set them on purpose; see docs/explanation/design.md."""

    def spoil() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (321, 321))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(3)

    home.start(f"{PROGRAMS / 'daemons.py'}:wait", "--name", "app", preexec_fn=spoil)
    pid = home.pid("app")
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (321, 321)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3


def test_nothing_is_closed_that_is_not_open(home: Home) -> None:
    """No loop to a limit that may be 2^30: one call for each run of open descriptors."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    calls = home.directory / "calls"
    strace = ("strace", "-f", "-qq", "-e", "trace=close,close_range", "-o", calls)
    words = home.words("start", f"{PROGRAMS / 'daemons.py'}:wait", "--name", "app")
    process = home.open(*strace, *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"app: running in the background")
    home.stop("app")
    process.communicate(timeout=PATIENCE)
    assert [line for line in calls.read_text().splitlines() if "EBADF" in line] == []


def test_every_one_of_the_fifteen_steps_is_in_the_plan(home: Home) -> None:
    """daemon(7): thirteen that this start takes, and privileges where they are asked for."""
    from forkfirst.plan import order  # noqa: PLC0415 - only here
    from forkfirst.plan.host import Host  # noqa: PLC0415 - only here
    from forkfirst.plan.service import Declaration  # noqa: PLC0415 - only here

    del home
    plan = order.make_plan(
        Declaration(name="a", target="a:b"), Host(uid=1, pid=2, home="/h", directory="/")
    )
    taken = {step.sysv for step in plan.steps} - {0}
    assert taken >= {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15}
