"""A service is started from any program, whatever is alive in it, and nothing is forked for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.service_home import PROGRAMS, holding, talk, wait_gone

if TYPE_CHECKING:
    from support.service_home import Done, Home, Told

SPAWNER = PROGRAMS / "spawner.py"
SERVE = f"{PROGRAMS / 'daemons.py'}:serve"
# Notes each fork of each interpreter that is started with it on its path.
_PROBE = """
import os, sys
def hear(event, _):
    if event in ("os.fork", "os.forkpty"):
        with open(os.environ["FORKS"], "a") as file:
            file.write(event + "\\n")
sys.addaudithook(hear)
"""
_WITH_A_THREAD = """
import threading
import forkfirst
go = threading.Event()
threading.Thread(target=go.wait, name="pump", daemon=True).start()

async def main(context):
    context.ready()
    await context.wait_stopping()

if __name__ == "__main__":
    forkfirst.Service(program=main, name="app").main()
"""


def spawner(home: Home, mode: str) -> dict[str, Any]:
    """Run the spawner in *mode* to its end and return the facts that it prints."""
    done = home.run(sys.executable, SPAWNER, mode)
    assert done.status == 0, done
    facts: dict[str, Any] = json.loads(done.out)
    return facts


def read_status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


# -- from a program that runs ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["spawn_blocking", "spawn_on_asyncio", "spawn_on_trio"])
def test_a_program_with_a_runtime_starts_a_service_and_stays_as_it_was(
    home: Home, mode: str
) -> None:
    """Threads, a loop and a trap that ends the program if it forks: nothing of it matters."""
    facts = spawner(home, mode)
    assert facts["changed"] == {}
    assert (facts["name"], facts["is_new"], facts["pid"]) == ("app", True, home.pid("app"))
    assert facts["status"].startswith("serving on ")
    assert talk(home.address("app")) == b"hello\n"


def test_the_service_inherits_nothing_of_the_program(home: Home) -> None:
    """Its mask, its ignored signals, its descriptors, its session and its terminal stay behind."""
    pid = spawner(home, "spawn_on_asyncio")["pid"]
    facts = read_status(pid)
    assert int(facts["SigBlk"], 16) == 0
    assert not int(facts["SigIgn"], 16) & 1 << signal.SIGUSR2 - 1
    names = [os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
    pipes = [name for name in names if name.startswith("pipe:")]
    assert len(pipes) == len(set(pipes)) * 2, "each pipe is the service's own, with both its ends"
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    session, terminal = int(fields[3]), int(fields[4])
    assert session not in (pid, os.getsid(0))
    assert terminal == 0


@pytest.mark.usefixtures("told")
def test_the_loop_turns_while_it_waits_for_the_service(home: Home) -> None:
    """The service is ready only after a task of that loop has done something for it."""
    assert spawner(home, "open_the_gate_on_asyncio")["name"] == "app"


@pytest.mark.usefixtures("told")
def test_the_blocking_call_would_stop_the_loop(home: Home) -> None:
    """Shown to fail without the property: with `spawn` in its place, that task never runs."""
    assert spawner(home, "block_the_loop")["error"] == "StuckError"


@pytest.mark.parametrize("mode", ["cancel_on_asyncio", "cancel_on_trio"])
def test_a_start_that_is_cancelled_leaves_nothing(home: Home, told: Told, mode: str) -> None:
    """Cancellation is no crash: it is over when everything is gone."""
    os.mkfifo(home.directory / "cancel")
    program = home.open(sys.executable, SPAWNER, mode, stdout=subprocess.PIPE)
    assert told.wait() == "hanging"
    (home.directory / "cancel").write_bytes(b"\n")
    out, _ = program.communicate()
    assert json.loads(out) == {"cancelled": True, "children": False}
    assert home.list_processes() == {}
    assert home.list_files() == []


def test_ctrl_c_takes_the_start_back(home: Home, told: Told) -> None:
    """The blocking call is interrupted as any other is, and leaves nothing either."""
    program = home.open(sys.executable, SPAWNER, "interrupt", stdout=subprocess.PIPE)
    assert told.wait() == "hanging"
    program.send_signal(signal.SIGINT)
    out, _ = program.communicate()
    assert json.loads(out) == {"interrupted": True, "children": False}
    assert home.list_processes() == {}


def test_a_program_that_dies_does_not_take_the_start_with_it(home: Home, told: Told) -> None:
    """Others may be waiting for that service: only who cancels takes it back."""
    os.mkfifo(home.directory / "gate")
    program = home.open(sys.executable, SPAWNER, "spawn_slowly")
    assert told.wait() == "waiting"
    program.kill()
    program.wait()
    launcher = next(pid for pid, name in home.list_processes().items() if "start app" in name)
    with holding(launcher) as pidfd:
        (home.directory / "gate").write_bytes(b"\n")
        if pidfd is not None:
            wait_gone(pidfd)
    assert home.status("app")["state"] == "ready"


def test_a_failure_is_reported_with_the_programs_own_words(home: Home) -> None:
    """The same report as at a terminal, as an exception; and nothing is left."""
    facts = spawner(home, "spawn_failing")
    assert (facts["error"], facts["status"]) == ("ProgramFailedError", 70)
    assert re.fullmatch(
        r'cannot start "app": the program failed before it was ready \(\d+ bytes of its output '
        r"below\)",
        facts["text"],
    )
    (note,) = facts["notes"]
    assert note.startswith("this is why\nTraceback")
    assert note.endswith("ValueError: no\n")
    assert home.list_processes() == {}
    assert home.list_files() == []


def test_a_second_start_is_told_who_runs(home: Home) -> None:
    """The same lock as at a terminal."""
    facts = spawner(home, "spawn_twice")
    assert facts["second"]["error"] == "AlreadyRunningError"
    assert facts["second"]["pid"] == facts["first"]["pid"] == home.pid("app")


def test_what_no_other_interpreter_can_import_is_refused(home: Home) -> None:
    """At once, and with the reason: not as a failure of the service."""
    facts = spawner(home, "refuse_nameless")
    assert {
        name: (one["error"], one["text"].partition(": ")[2]) for name, one in facts.items()
    } == {
        "lambda": ("TargetError", "it is a lambda, which has no name"),
        "local": ("TargetError", "it is defined inside another function"),
        "object": ("TargetError", "it has no name"),
    }
    assert home.list_processes() == {}


def test_a_program_at_a_prompt_is_refused(home: Home) -> None:
    """A notebook's functions are in no file."""
    text = (
        "import forkfirst\n"
        "async def main(): pass\n"
        "try: forkfirst.spawn(forkfirst.Service(program=main, name='app'))\n"
        "except forkfirst.ForkfirstError as error: print(error)\n"
    )
    done = home.run(sys.executable, "-c", text)
    assert "defined in no file, but at a prompt, in a notebook or in a text" in done.out, done


def test_the_path_of_modules_goes_with_it(home: Home) -> None:
    """What the program can import, its service can: `sys.path` as it is, not as it began."""
    (home.directory / "elsewhere").mkdir()
    (home.directory / "elsewhere" / "hidden_program.py").write_text(
        "async def main(context):\n    context.ready(); await context.wait_stopping()\n"
    )
    assert spawner(home, "spawn_from_own_path").get("name") == "app"


def test_it_is_restarted_by_its_name(home: Home) -> None:
    """What was declared in a program is put down as a command line."""
    first = spawner(home, "spawn_blocking")["pid"]
    assert home.forkfirst("restart", "app").status == 0
    assert home.pid("app") != first
    assert talk(home.address("app")) == b"hello\n"


# -- from the command line -------------------------------------------------------------------------


def start_under_probe(home: Home, *words: object) -> list[str]:
    """Start a service where every fork is noted; return the notes."""
    probe = home.directory / "probe"
    probe.mkdir()
    (probe / "sitecustomize.py").write_text(_PROBE)
    forks = home.directory / "forks"
    home.environment |= {"PYTHONPATH": str(probe), "FORKS": str(forks)}
    home.start(*words)
    return forks.read_text().splitlines() if forks.exists() else []


def test_start_spawn_forks_nothing(home: Home) -> None:
    """Not in the launcher, not in the session leader, not in the service."""
    words = (SERVE, "--name", "app", "--listen", "web=127.0.0.1:0")
    assert start_under_probe(home, "--spawn", *words) == []
    assert talk(home.address("app")) == b"hello\n"
    environment = Path(f"/proc/{home.pid('app')}/environ").read_bytes()
    assert f"FORKFIRST_PYTHONPATH={home.directory}/probe".encode() in environment


def test_a_fork_would_have_been_noted(home: Home) -> None:
    """Shown to fail without the property: an ordinary start forks twice."""
    assert start_under_probe(home, SERVE, "--name", "app") == ["os.fork", "os.fork"]


def test_a_spawned_service_is_like_any_other(home: Home) -> None:
    """It has the same files, is no session leader, and goes the same way."""
    home.start("--spawn", SERVE, "--name", "app", "--listen", "web=127.0.0.1:0")
    pid = home.pid("app")
    assert os.getsid(pid) != pid
    assert home.stop("app").out == f"app: stopped (pid {pid})\n"
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]


def test_a_spawned_command_has_its_listeners(home: Home) -> None:
    """With a LISTEN_PID that is its own, which nobody knows before it runs."""
    command = (sys.executable, PROGRAMS / "daemons.py", "serve")
    home.start(
        "--spawn",
        "--name",
        "app",
        "--listen",
        "web=127.0.0.1:0",
        "--settle",
        "0.01",
        "--",
        *command,
    )
    assert talk(home.address("app")) == b"hello\n"


def test_a_spawned_service_that_fails_leaves_nothing(home: Home) -> None:
    """With the same report, and the same status."""
    home.program("app.py", "raise SystemExit(3)")
    done = home.forkfirst("start", "--spawn", "app.py")
    assert done.status == 3, done
    assert "ended with status 3 before it was ready" in done.err
    assert home.list_processes() == {}
    assert home.list_files() == []


def test_a_killed_launcher_leaves_no_spawned_service(home: Home, told: Told) -> None:
    """The session leader, which is an interpreter of its own here, ends what was begun."""
    launcher = home.open(*home.words("start", "--spawn", f"{SPAWNER}:hang", "--name", "app"))
    assert told.wait() == "hanging"
    launcher.kill()
    launcher.wait()
    home.wait_alone()


def test_plan_shows_that_nothing_is_forked(home: Home) -> None:
    """Exactly what `start --spawn` does."""
    done = home.forkfirst("plan", "--spawn", SERVE)
    assert done.status == 0, done
    assert "fork again" not in done.out
    assert done.out.count("posix_spawn(3)") == 2


def test_a_program_with_a_thread_is_not_forked_but_can_be_spawned(home: Home) -> None:
    """The refusal names what is alive, and what to do; and that works."""
    home.program("app.py", _WITH_A_THREAD)
    refused = home.run(sys.executable, "app.py", "start")
    assert refused.status == 70
    assert refused.err.startswith(
        'forkfirst: cannot fork "app": other threads are alive in this process\n'
        "  1 Python thread: pump   running threading.Event.wait\n"
    )
    assert "or start with --spawn" in refused.err
    assert home.list_processes() == {}
    started = home.run(sys.executable, "app.py", "start", "--spawn")
    assert (started.status, started.err) == (0, ""), started
    assert home.status("app")["state"] == "ready"
    assert home.forkfirst("restart", "app").status == 0


# -- seen from outside -----------------------------------------------------------------------------


def run_under_strace(home: Home, *words: object) -> tuple[Done, list[str]]:
    """Run a command and return the calls by which any of its processes made another."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    trace = home.directory / "trace"
    traced = ("strace", "-f", "-qq", "-o", trace, "-e", "trace=fork,vfork,clone,clone3")
    done = home.run(*traced, *words)
    # -f waits for the daemon as well: by now it was ended by the program. A call that another
    # process interrupts has two lines, and its flags in the first.
    return done, [
        line
        for line in trace.read_text().splitlines()
        if ("clone" in line or "fork" in line) and "resumed>" not in line
    ]


@pytest.mark.real
def test_the_kernel_sees_no_fork_of_the_program(home: Home) -> None:
    """Only threads, and children that share its memory until they execute."""
    text = (
        "import sys, threading, forkfirst\n"
        "go = threading.Event(); threading.Thread(target=go.wait, daemon=True).start()\n"
        f"one = forkfirst.spawn(forkfirst.Service(program={SERVE!r}, name='app'))\n"
        "import os; os.kill(one.pid, 15)\n"
    )
    done, calls = run_under_strace(home, sys.executable, "-c", text)
    assert done.status == 0, done
    program = calls[0].split()[0]
    own = [line for line in calls if line.split()[0] == program]
    assert any("CLONE_VFORK" in line for line in own)
    assert all("CLONE_VM" in line for line in own), own


@pytest.mark.real
def test_the_kernel_sees_no_fork_of_start_spawn(home: Home) -> None:
    """Not one in any process, from the launcher to the service, until it was stopped."""
    home.program(
        "app.py",
        "import os, signal\n"
        "async def main(context):\n"
        "    context.ready()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await context.wait_stopping()\n",
    )
    done, calls = run_under_strace(home, *home.words("start", "--spawn", "app.py"))
    assert done.status == 0, done
    assert sum("CLONE_VFORK" in line for line in calls) == 2
    assert all("CLONE_VM" in line for line in calls), calls


# Prints how many microseconds the call took each time; the launcher is told a target that is not
# there, so nothing is left of it.
_TIMED = """
import statistics, sys, time, forkfirst
from forkfirst.inside import spawning
from forkfirst.stages.fresh import commission
memory = bytearray(int(sys.argv[1]))
memory[::4096] = b"x" * len(range(0, len(memory), 4096))
ordered = spawning.make_order(forkfirst.Service(program="nowhere.py:main", name="app"))
times = []
for _ in range(9):
    began = time.perf_counter()
    begun = commission.begin(ordered)
    times.append(time.perf_counter() - began)
    begun.close()
print(statistics.median(times))
"""


@pytest.mark.slow
def test_the_size_of_the_program_does_not_matter(home: Home) -> None:
    """A fork copies the page tables: 4 GiB make it 200 times as slow; this, not twice."""
    bare, large = (float(home.run(sys.executable, "-c", _TIMED, size).out) for size in (0, 4 << 30))
    assert large < 10 * bare, f"{large / bare:.1f} times as slow"
