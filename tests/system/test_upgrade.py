"""Upgrades of real services: another forkfirst, and not one process, listener or request less."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import other_user
from support.load import REQUEST, Load
from support.own_package import OwnPackage
from support.service_home import PATIENCE, Done, holding, wait_gone
from support.source_tree import ROOT

if TYPE_CHECKING:
    from support.service_home import Home

HELLO = (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")
ENTRY = "stages/upgrade/entry.py"
PROVING = "    data = state.read(file)\n    state.check_descriptors(data, without"
TAKING = "    os.close(file)\n"


@pytest.fixture
def package(home: Home) -> OwnPackage:
    made = OwnPackage(home)
    made.become("1.0")
    return made


def _start(home: Home, *flags: object, workers: int = 2) -> None:
    program = home.program("app.py", HELLO)
    words = ("--listen", f"web=unix:{home.directory}/web", "--workers", workers)
    home.start(f"{program}:main", *words, *flags)


def _upgrade(home: Home, *flags: object) -> Done:
    return home.forkfirst("upgrade", "app", *flags)


def _pids(home: Home) -> list[int]:
    return [one["pid"] for one in home.status("app")["workers"]]


def _connect(home: Home, name: str = "web") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(home.directory / name))
    return connection


def _ask(home: Home) -> bytes:
    with _connect(home) as connection:
        connection.sendall(REQUEST)
        return connection.recv(4096)


def _wait_until(home: Home, holds: Any) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while not holds(found := home.status("app")):
        assert time.monotonic() < deadline, found
    return found


def _count_files(home: Home) -> int:
    """Return how many different files the supervisor has open, whoever asked before."""
    pid = home.pid("app")
    with _connect(home, "state/run/app.sock") as connection:
        for _ in range(2):  # after the second answer the turn of the first one is over
            connection.sendall(b'{"ask": "ping"}\n')
            assert connection.recv(4096) == b'{"ok":true}\n'
        # Different ones, because the spares of the control socket come and go while it answers.
        return len({one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir()})


# -- what changes, and what does not ---------------------------------------------------------------


def test_the_version_changes_and_nothing_else(home: Home, package: OwnPackage) -> None:
    """Who supervises it, who uses it and who reads its log see one process that goes on."""
    _start(home)
    before, pid = home.status("app"), home.pid("app")
    assert before["forkfirst"] == "1.0"
    with Load(str(home.directory / "web")) as load:
        package.become("2.0")
        done = _upgrade(home)
        load.wait_for_more(100)
    assert (done.status, done.err) == (0, ""), done
    assert done.out.startswith("app: upgraded, forkfirst 1.0 → 2.0, after ")
    assert load.failures == []
    after = home.status("app")
    assert (after["forkfirst"], after["pid"], home.pid("app")) == ("2.0", pid, pid)
    assert [one["pid"] for one in after["workers"]] == [one["pid"] for one in before["workers"]]
    assert after["uptime_seconds"] > before["uptime_seconds"]
    assert after["listeners"] == before["listeners"]
    assert "upgraded: forkfirst 1.0 → 2.0" in home.log("app")
    assert home.forkfirst("start", "app.py", "--workers", 1).status == 75, "the lock is held"


def test_everything_works_after_an_upgrade_as_before_it(home: Home, package: OwnPackage) -> None:
    """It is the same supervisor in every respect; also of the workers that it did not start."""
    _start(home)
    first, second = _pids(home)
    package.become("2.0")
    assert _upgrade(home).status == 0
    os.kill(first, signal.SIGKILL)
    found = _wait_until(home, lambda found: _count(found, "ready") == 2 and first not in _p(found))
    assert second in _p(found)
    assert f"worker 1 (pid {first}) was killed by SIGKILL" in home.log("app")
    for one in Path(f"/proc/{home.pid('app')}/fdinfo").iterdir():
        flags = int(one.read_text().split("flags:")[1].split()[0], 8)
        assert int(one.name) < 3 or flags & os.O_CLOEXEC, "no program may inherit it"
    assert home.forkfirst("rotate", "app").status == 0
    assert home.forkfirst("stacks", "app").out.count("in main") >= 2
    assert home.forkfirst("scale", "app", 3).status == 0
    assert home.forkfirst("reload", "app").status == 0
    _wait_until(home, lambda found: [one["generation"] for one in found["workers"]] == [2, 2, 2])
    assert _upgrade(home).status == 0
    os.kill(home.pid("app"), signal.SIGTTOU)
    _wait_until(home, lambda found: len(found["workers"]) == 2)
    home.stop("app")
    assert home.list_processes() == {}
    assert not (home.directory / "web").exists()
    assert [one for one in home.list_files() if "log" not in one] == ["run/app.service"]


def _p(found: dict[str, Any]) -> list[int]:
    return [one["pid"] for one in found["workers"]]


def _count(found: dict[str, Any], state: str) -> int:
    return [one["state"] for one in found["workers"]].count(state)


def test_when_the_new_supervisor_is_killed_nobody_keeps_its_listeners(home: Home) -> None:
    """The lifelines have come along: workers that it never started die with it too."""
    _start(home)
    pids = _pids(home)
    assert _upgrade(home).status == 0
    with holding(pids[0]) as first, holding(pids[1]) as second:
        os.kill(home.pid("app"), signal.SIGKILL)
        for pidfd in (first, second):
            assert pidfd is not None
            wait_gone(pidfd)


@pytest.mark.slow
def test_the_command_line_that_is_seen_stays_recognisable(home: Home) -> None:
    """Whoever looks for it by its words finds it, also after the second time."""
    _start(home)
    words = Path(f"/proc/{home.pid('app')}/cmdline").read_bytes()
    for _ in range(2):
        assert _upgrade(home).status == 0
        now = Path(f"/proc/{home.pid('app')}/cmdline").read_bytes()
        assert now.endswith(words)
        assert now.count(words) == 1


@pytest.mark.slow
def test_a_template_is_made_again_and_forks_the_next_worker(home: Home) -> None:
    """One of the version before would go on forking that; without any, each worker would import."""
    _start(home, "--preload")
    before = home.status("app")
    assert _upgrade(home).status == 0
    found = _wait_until(home, lambda found: found["preload"].startswith("by the template"))
    assert found["preload"] != before["preload"]
    assert _p(found) == _p(before)
    os.kill(_p(found)[0], signal.SIGKILL)
    found = _wait_until(home, lambda found: _count(found, "ready") == 2 and 3 in _numbers(found))
    assert "fell back" not in found["preload"]
    home.stop("app")
    assert home.list_processes() == {}


@pytest.mark.slow
def test_a_worker_that_waits_for_its_template_is_waited_for(home: Home) -> None:
    """It has no pid yet that could be handed over; its template goes with the old supervisor."""
    gate = home.directory / "gate"
    _start(home, "--preload", workers=1)
    template = int(home.status("app")["preload"].rpartition(" ")[2])
    os.mkfifo(gate)
    waits = f"import asyncio\nopen({str(gate)!r}).read()\n"
    home.program("app.py", HELLO.replace("import asyncio\n", waits, 1))
    os.kill(template, signal.SIGKILL)  # the next one waits in its import
    _wait_until(home, lambda found: found["preload"].startswith("begins"))
    assert home.forkfirst("scale", "app", 2).status == 0
    done = _upgrade(home, "--timeout", "1s")
    assert (done.status, "a worker is still waiting to be forked" in done.err) == (70, True), done
    upgrade = home.open(*home.words("upgrade", "app"), stdout=subprocess.DEVNULL)
    held = os.open(gate, os.O_WRONLY)  # by whoever imports it is open now, too
    gate.unlink()
    gate.write_text("")  # for the template that the new supervisor makes
    os.close(held)
    assert upgrade.wait(PATIENCE) == 0
    _wait_until(home, lambda found: _count(found, "ready") == 2)


def _numbers(found: dict[str, Any]) -> list[int]:
    return [one["worker"] for one in found["workers"]]


def test_a_worker_that_drains_is_waited_for_by_the_new_supervisor(home: Home) -> None:
    """A request that began before all of it is answered after all of it."""
    _start(home)
    with _connect(home) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(4096)
        connection.sendall(REQUEST[:20])
        assert home.forkfirst("reload", "app").status == 0
        assert _upgrade(home).status == 0
        connection.sendall(REQUEST[20:])
        assert connection.recv(4096).endswith(b"hello\n")
    _wait_until(home, lambda found: [one["generation"] for one in found["workers"]] == [2, 2])


def test_a_worker_that_starts_is_waited_for_even_if_it_says_less(
    home: Home, package: OwnPackage
) -> None:
    """It is of the version before, and speaks as that did: here without naming its runtime."""
    gate = home.directory / "gate"
    waits = f"    await asyncio.to_thread(open({str(gate)!r}).read)\n    context.ready("
    with package.change("stages/supervise/worker.py", "runtime=self._facts.runtime,", ""):
        _start(home, workers=1)
        os.mkfifo(gate)
        home.program("app.py", HELLO.replace("    context.ready(", waits))
        assert home.forkfirst("scale", "app", 2).status == 0
        _wait_until(home, lambda found: _count(found, "starting") == 1)
        assert _upgrade(home).status == 0
    gate.write_text("")
    _wait_until(home, lambda found: _count(found, "ready") == 2)


def test_who_is_asking_is_answered_by_the_new_supervisor(home: Home) -> None:
    """Half a question was read by the old one; only in its memory is it still to be had."""
    _start(home, workers=1)
    with _connect(home, "state/run/app.sock") as connection:
        connection.sendall(b'{"ask": "pi')
        home.status("app")  # who came later is answered, so that has been read
        assert _upgrade(home).status == 0
        connection.sendall(b'ng"}\n')
        assert connection.recv(4096) == b'{"ok":true}\n'


def test_a_program_is_found_as_it_was_before(home: Home) -> None:
    """What is on the path of modules by the way of starting is so for the next worker, too."""
    home.program("helper.py", "WORD = 'helped'\n")
    (home.directory / "below").mkdir()
    text = (
        "import helper\n"
        "async def main(context):\n"
        "    context.ready(helper.WORD)\n"
        "    await context.wait_stopping()\n"
    )
    program = home.program("below/app.py", text)
    home.start(f"{program}:main", "--workers", 1)  # by `-m`, from where the helper is
    assert _upgrade(home).status == 0
    home.program("helper.py", "WORD = 'helped again'\n")
    os.kill(_pids(home)[0], signal.SIGKILL)
    _wait_until(home, lambda found: found["status"] == "helped again")


@pytest.mark.slow
def test_a_program_that_declares_itself_is_upgraded_by_its_own_command(home: Home) -> None:
    """Its supervisor was executed before, without the program; so is the new one."""
    text = (
        "from forkfirst import Service\n"
        "async def main(context):\n"
        "    context.ready('served')\n"
        "    await context.wait_stopping()\n"
        "service = Service(program=main, name='app', workers=1)\n"
        "if __name__ == '__main__':\n"
        "    service.main()\n"
    )
    python, program = home.words()[0], home.program("app.py", text)
    assert home.run(python, program, "start").status == 0
    done = home.run(python, program, "upgrade")
    assert (done.status, done.err) == (0, "")
    os.kill(_pids(home)[0], signal.SIGKILL)
    _wait_until(home, lambda found: [one["worker"] for one in found["workers"]] == [2])
    assert home.run(python, program, "stop").status == 0


# -- what fails leaves everything as it was --------------------------------------------------------

BROKEN = {
    "cannot be imported": ("import gc\n", "import nosuch\n", (), "No module named 'nosuch'"),
    "raises": (PROVING, "    raise RuntimeError('half installed')\n" + PROVING, (), "half inst"),
    "is killed": (PROVING, "    os.kill(os.getpid(), 9)\n" + PROVING, (), "killed by SIGKILL"),
    "says nothing": (PROVING, "    session.leave(0)\n" + PROVING, (), "exited with status 0"),
    "hangs": (
        PROVING,
        "    import select; select.poll().poll()\n" + PROVING,
        ("--timeout", "0.3s"),
        "could not take over in 0.3 s",
    ),
}


def test_a_new_version_that_is_broken_changes_nothing(home: Home, package: OwnPackage) -> None:
    """It was proved beside the one that runs, so its failure is a message and no outage."""
    _start(home, workers=1)
    pid, workers, files = home.pid("app"), _pids(home), _count_files(home)
    for kind, (before, after, flags, said) in BROKEN.items():
        with package.change(ENTRY, before, after):
            done = _upgrade(home, *flags)
        assert (done.status, done.out) == (70, ""), (kind, done)
        assert said in done.err, kind
        assert 'cannot upgrade "app": the new forkfirst ' in done.err
        assert done.err.endswith("the supervisor from before goes on, with its workers\n")
        assert _ask(home).endswith(b"hello\n")
        assert (home.pid("app"), _pids(home), _count_files(home)) == (pid, workers, files), kind
    assert home.log("app").count("not upgraded: the new forkfirst") == len(BROKEN)
    assert _upgrade(home).status == 0, "and the next one, mended, goes well"


def _link_interpreter(home: Home) -> Path:
    """Return an interpreter that can be taken away."""
    link = home.directory / "python"
    link.symlink_to(sys.executable)
    return link


def test_an_interpreter_that_is_gone_changes_nothing(home: Home, package: OwnPackage) -> None:
    """A virtual environment that was removed too early is the most common reason."""
    assert package
    python = _link_interpreter(home)
    program = home.program("app.py", HELLO)
    words = ("start", f"{program}:main", "--listen", f"web=unix:{home.directory}/web")
    assert home.run(python, "-m", "forkfirst", *words, "--workers", 1).status == 0
    workers = _pids(home)
    python.unlink()
    done = _upgrade(home)
    assert done.status == 70, done
    assert done.err == (
        'forkfirst: cannot upgrade "app": the interpreter of the supervisor, '
        f"{python}, is not there any more\n"
        "  put it back, or restart the service with another\n"
    )
    assert _pids(home) == workers
    python.symlink_to(sys.executable)
    assert _upgrade(home).status == 0


def test_an_exec_that_fails_changes_nothing(home: Home, package: OwnPackage) -> None:
    """The last moment of all: what was blocked is let through, what was opened is closed."""
    python = _link_interpreter(home)
    program = home.program("app.py", HELLO)
    words = ("start", f"{program}:main", "--listen", f"web=unix:{home.directory}/web")
    assert home.run(python, "-m", "forkfirst", *words, "--workers", 1).status == 0
    pid, workers, files = home.pid("app"), _pids(home), _count_files(home)
    with package.change(ENTRY, PROVING, "    os.unlink(sys.executable)\n" + PROVING):
        done = _upgrade(home)
    assert done.status == 70, done
    assert "cannot execute the new forkfirst: no such file or directory" in done.err
    assert (home.pid("app"), _pids(home), _count_files(home)) == (pid, workers, files)
    assert "SigBlk:\t0000000000000000" in Path(f"/proc/{pid}/status").read_text()
    python.symlink_to(sys.executable)
    assert _upgrade(home).status == 0
    home.stop("app")


# -- signals, and deaths, in the middle ------------------------------------------------------------


def test_a_stop_that_comes_during_the_exec_is_obeyed(home: Home, package: OwnPackage) -> None:
    """Lost, it would be a service that its manager kills after a time limit."""
    _start(home)
    with package.change(ENTRY, TAKING, f"{TAKING}    os.kill(os.getpid(), 15)\n"):
        assert _upgrade(home).status == 0
    home.wait_alone()
    assert home.list_files() == ["app.log", "run/app.service"]


def test_a_signal_that_was_taken_and_not_obeyed_yet_is_handed_over(
    home: Home, package: OwnPackage
) -> None:
    """It is in the old supervisor's memory only: the kernel has delivered it."""
    with package.change(
        "stages/upgrade/upgrading.py",
        "        mask = signals.block_all()\n",
        "        os.kill(os.getpid(), signal.SIGTTIN)\n        mask = signals.block_all()\n",
    ):
        _start(home, workers=1)
        assert _upgrade(home).status == 0
    _wait_until(home, lambda found: found["asked"] == 2 and _count(found, "ready") == 2)


def test_a_worker_that_dies_during_the_exec_is_replaced(home: Home, package: OwnPackage) -> None:
    """Nobody hears its SIGCHLD: the old supervisor is gone, the new one does not listen yet."""
    _start(home, workers=1)
    (victim,) = _pids(home)
    died = f"    os.kill({victim}, 9)\n    os.waitid(os.P_PID, {victim}, os.WEXITED | os.WNOWAIT)\n"
    with package.change(ENTRY, TAKING, TAKING + died):
        assert _upgrade(home).status == 0
    found = _wait_until(home, lambda found: _count(found, "ready") == 1)
    assert victim not in _p(found)
    assert f"worker 1 (pid {victim}) was killed by SIGKILL" in home.log("app")


def test_a_supervisor_that_is_killed_takes_a_proof_that_hangs_with_it(
    home: Home, package: OwnPackage
) -> None:
    """It has copies of the listeners and of the lock; an orphan would keep them for ever."""
    _start(home, workers=1)
    with package.change(ENTRY, "import gc\n", "import select\nselect.poll().poll()\n"):
        process = _begin(home)
        os.kill(home.pid("app"), signal.SIGKILL)
        assert process.wait(PATIENCE) != 0
        home.wait_alone()


# -- not now ---------------------------------------------------------------------------------------


def _begin(home: Home, *words: object) -> subprocess.Popen[bytes]:
    """Begin an upgrade whose proof hangs; return when that is there."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = home.open(*home.words("upgrade", "app", *words), **quiet)
    deadline = time.monotonic() + PATIENCE
    while not any(" prove " in one for one in home.list_processes().values()):
        assert time.monotonic() < deadline
    return process


def test_one_upgrade_at_a_time_and_none_beside_a_reload(home: Home, package: OwnPackage) -> None:
    """Two changes at once would be judged by each other's failures."""
    _start(home, workers=1)
    with package.change(ENTRY, PROVING, "    import select; select.poll().poll()\n" + PROVING):
        first = _begin(home)
        done = _upgrade(home)
        assert done.status == 70
        assert done.err == (
            'forkfirst: cannot upgrade "app": another upgrade is in progress\n'
            "  try again when that is over\n"
        )
        assert home.forkfirst("reload", "app").status == 0, "which it does not hinder"
        home.stop("app")
        assert first.wait(PATIENCE) == 3, "and who waited is told that the service ended"
        home.wait_alone()
    _start(home, workers=1)
    reload = home.open(*home.words("reload", "app", "--commit-window", "20s"))
    _wait_until(home, lambda found: found["state"] == "reloading")
    done = _upgrade(home)
    assert done.status == 70
    assert 'cannot upgrade "app": a reload is in progress' in done.err
    home.stop("app")
    assert reload.wait(PATIENCE) == 70


@pytest.mark.slow
def test_one_process_without_a_supervisor_says_what_to_do(home: Home, package: OwnPackage) -> None:
    """Nothing could stay there while forkfirst is replaced; but its reload is a fresh process."""
    package.become("1.0")
    program = home.program("app.py", HELLO)
    home.start(f"{program}:main", "--listen", f"web=unix:{home.directory}/web")
    done = _upgrade(home)
    assert done.status == 64
    assert done.err.startswith(
        'forkfirst: cannot upgrade "app": it runs as one process, without a supervisor\n'
        "  forkfirst reload app: its new process has the new forkfirst\n"
    )
    package.become("2.0")
    assert home.forkfirst("reload", "app").status == 0
    assert home.status("app")["forkfirst"] == "2.0"
    home.stop("app")
    done = _upgrade(home)
    assert (done.status, done.err) == (3, 'forkfirst: cannot upgrade "app": it is not running\n')
    assert _upgrade(home, "--timeout", "soon").status == 78


# -- under a manager, and in the foreground --------------------------------------------------------


def test_a_manager_is_told_by_the_new_supervisor_too(home: Home) -> None:
    """Its address was taken out of the environment; the watchdog would end the service."""
    path = str(home.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE)
        program = home.program("app.py", HELLO)
        (home.directory / "own").mkdir()
        environment = {
            **home.environment,
            "NOTIFY_SOCKET": path,
            "WATCHDOG_USEC": "400000",
            "RUNTIME_DIRECTORY": str(home.directory / "own"),
        }
        words = (f"{program}:main", "--listen", f"web=unix:{home.directory}/web", "--workers", 1)
        service = home.open(*home.words("run", *words), env=environment)
        assert _hear(manager, b"READY=1") == b"READY=1\nSTATUS=serving"
        control = ("--control", home.directory / "own" / "app.sock")
        done = _upgrade(home, *control)
        assert done.status == 0, done
        assert _hear(manager, b"WATCHDOG=1") == b"WATCHDOG=1"
        assert _hear(manager, b"WATCHDOG=1") == b"WATCHDOG=1"
        service.send_signal(signal.SIGTERM)
        _hear(manager, b"STOPPING=1")
        assert service.wait(PATIENCE) == 0


def _hear(manager: socket.socket, beginning: bytes) -> bytes:
    while not (message := manager.recv(4096)).startswith(beginning):
        pass
    return message


def test_in_the_foreground_it_leaves_as_little_behind(home: Home) -> None:
    """What it would have put back at its end is known to the new supervisor as well."""
    program = home.program("app.py", HELLO)
    words = ("--listen", f"web=unix:{home.directory}/web", "--workers", 1)
    passed = os.memfd_create("passed by whoever started it")
    process = home.open(*home.words("run", f"{program}:main", *words), pass_fds=(passed,))
    deadline = time.monotonic() + PATIENCE
    while home.forkfirst("status", "app").out.partition(",")[0] != "app: ready":
        assert time.monotonic() < deadline
    assert _upgrade(home).status == 0
    kept = Path(f"/proc/{process.pid}/fd/{passed}").stat()
    assert os.path.samestat(kept, os.fstat(passed)), "what was passed on purpose comes along"
    os.close(passed)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert home.list_files() == []
    assert not (home.directory / "web").exists()


# -- many times ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_twenty_upgrades_under_load_lose_nothing_and_leave_nothing(
    home: Home, package: OwnPackage
) -> None:
    """Descriptors, workers and memory are those of the first; not one request has failed."""
    _start(home)
    pid, workers = home.pid("app"), _pids(home)
    with Load(str(home.directory / "web")) as load:
        assert _upgrade(home).status == 0
        files, memory = _count_files(home), _memory(pid)
        for number in range(20):
            package.become(f"2.{number}")
            assert _upgrade(home).status == 0
            load.wait_for_more(50)
    assert load.failures == []
    assert _count_files(home) == files
    assert _memory(pid) <= memory + 512
    assert (home.pid("app"), _pids(home)) == (pid, workers)
    assert home.status("app")["forkfirst"] == "2.19"


def _memory(pid: int) -> int:
    """Return the resident memory of *pid*, in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


@pytest.mark.real
@pytest.mark.parametrize("kept", [(), ("--keep-capability", "net_bind_service")])
def test_a_service_that_gave_up_its_rights_has_no_more_and_no_less_after_it(
    home: Home, kept: tuple[str, ...]
) -> None:
    """An exec gives back what is not given up for good, and takes what is not kept for it."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    other_user.open_home(home)
    home.program("app.py", HELLO)
    words = ("--user", "nobody", *kept, "--listen", "web=127.0.0.1:0", "--workers", 1)
    done = other_user.forkfirst_as(home, "start", *words, "app.py:main")
    assert done.status == 0, done
    found = json.loads(other_user.forkfirst_as(home, "status", "app", "--json").out)
    before = _rights(found["pid"])
    done = other_user.forkfirst_as(home, "upgrade", "app")
    assert done.status == 0, done
    assert _rights(found["pid"]) == before
    os.kill(found["workers"][0]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while [one["worker"] for one in found["workers"] if one["state"] == "ready"] != [2]:
        found = json.loads(other_user.forkfirst_as(home, "status", "app", "--json").out)
        assert time.monotonic() < deadline
    assert _rights(found["workers"][0]["pid"]) == before, "and so have the workers of the new one"
    assert other_user.forkfirst_as(home, "stop", "app").status == 0


def _rights(pid: int) -> tuple[list[str], int]:
    """Return what *pid* may, and to whom its memory belongs: to root, if it cannot be dumped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kinds = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs")
    return [line for line in lines if line.startswith(kinds)], Path(f"/proc/{pid}/fd").stat().st_uid
