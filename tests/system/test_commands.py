"""What a person types, from the first start to the last stop, with real services."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from support.service_home import PROGRAMS, talk

if TYPE_CHECKING:
    from support.service_home import Home, Told

DAEMONS = PROGRAMS / "daemons.py"
COMMAND = ("--settle", "60", "--", sys.executable, str(DAEMONS), "serve")

HELP = "\n  see forkfirst {} --help"
WAITING = """
async def main(context):
    context.ready()
    await context.wait_stopping()
"""
STUCK = """
import os, time
async def main(context):
    context.ready()
    blocked_here()
def blocked_here():
    with open(os.environ["TELL"], "w") as fifo:
        fifo.write("blocked\\n")
    time.sleep(1000)
"""

WAYS = {
    "asyncio": (f"{DAEMONS}:serve",),
    "uvloop": (f"{DAEMONS}:serve", "--runtime", "uvloop"),
    "trio": (f"{DAEMONS}:serve_on_trio", "--runtime", "trio"),
    "none": (f"{DAEMONS}:serve_plainly",),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_service_is_started_answers_and_is_stopped(home: Home, way: str, kind: str) -> None:
    """The whole life of a service on every runtime, over TCP and over a path."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{home.directory}/web"
    done = home.start(*WAYS[way], "--name", "app", "--listen", f"web={address}")
    assert re.fullmatch(
        rf"app: running in the background, pid {home.pid('app')}, ready after \d+ ms, "
        rf"log {home.state}/app.log, serving on \w+(\.\w+)*\n",
        done.out,
    )
    assert talk(home.address("app")) == b"hello\n"
    assert home.status("app")["runtime"] == way
    pid = home.pid("app")
    assert home.stop("app").out == f"app: stopped (pid {pid})\n"
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]
    assert not (home.directory / "web").exists()


def test_a_command_of_any_language_is_a_service(home: Home) -> None:
    """What follows `--` is executed as it stands, with the listeners passed as a manager does."""
    home.start("--name", "app", "--listen", "web=127.0.0.1:0", "--settle", "0.01", *COMMAND[2:])
    address = home.address("app")
    assert talk(address) == b"hello\n"
    facts = home.status("app")
    assert facts["runtime"] == "command"
    assert facts["pid"] == home.pid("app")
    home.stop("app")
    assert home.list_processes() == {}
    assert home.log("app") == "serving web\n"


def test_a_command_that_says_ready_is_ready_then(home: Home) -> None:
    """By a newline on a descriptor, as s6 has it: no time has to pass."""
    words = ("sh", "-c", "echo >&5; exec sleep 1000")
    home.start("--name", "app", "--settle", "60", "--notify-fd", 5, "--", *words)
    home.stop("app")
    assert home.list_processes() == {}


def test_status_says_how_a_service_is(home: Home) -> None:
    """In words for a person."""
    home.start(f"{DAEMONS}:serve", "--name", "app", "--listen", "web=127.0.0.1:0")
    address = dict(home.status("app")["listeners"])["web"]
    assert re.fullmatch(
        rf"app: ready, pid {home.pid('app')}, up \d+ s\n"
        r"  status   serving on [\w.]+\n"
        rf"  listens  web={address}\n"
        r"  uses     \d+\.\d MiB, \d+ threads, \d\.\d\d s of CPU, runtime asyncio, forkfirst \S+\n"
        rf"  log      {home.state}/app.log\n",
        home.forkfirst("status", "app").out,
    )


def test_status_as_json_has_every_fact(home: Home) -> None:
    """For scripts, in names that stay."""
    home.start(f"{DAEMONS}:serve", "--name", "app", "--grace-period", "3")
    facts = home.status("app")
    wanted = {
        "name": "app",
        "pid": home.pid("app"),
        "running": True,
        "state": "ready",
        "status": "serving on forkfirst.runtime.asyncio_",
        "runtime": "asyncio",
        "mode": "daemon",
        "grace_seconds": 3.0,
        "stuck_seconds": 0.0,
        "listeners": [],
        "log": f"{home.state}/app.log",
        "dropped_bytes": 0,
        "threads": 2,
        "trouble": None,
    }
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["rss_bytes"] > 1 << 20
    assert facts["uptime_seconds"] > 0
    assert facts["cpu_seconds"] >= 0


def test_status_of_what_does_not_run_is_3(home: Home) -> None:
    """LSB's status, before the first start and after the last stop."""
    assert home.forkfirst("status", "app") == (3, "app: not running\n", "")
    done = home.forkfirst("status", "app", "--json")
    assert (done.status, json.loads(done.out)["state"]) == (3, "stopped")
    home.start(f"{DAEMONS}:wait", "--name", "app")
    home.stop("app")
    assert home.forkfirst("status", "app") == (3, "app: not running\n", "")


@pytest.mark.parametrize(("end", "status"), [("raise SystemExit(7)", 7), ("1 / 0", 1), ("", 0)])
def test_of_what_ended_by_itself_it_is_said_how_and_when(home: Home, end: str, status: int) -> None:
    """The launcher had gone by then, so nobody else could know."""
    home.program("app.py", f"async def main(context):\n    context.ready()\n    {end}\n")
    home.start("app.py")
    home.wait_alone()
    seen = home.forkfirst("status", "app")
    assert seen.status == 3
    said = re.fullmatch(
        r"app: not running; it ended by itself at (.*), with status (\d+); "
        r"see forkfirst logs app\n",
        seen.out,
    )
    assert said is not None, seen
    assert int(said[2]) == status
    assert json.loads(home.forkfirst("status", "app", "--json").out)["ended"] == status
    assert said[0][len("app: not running; ") :].split(";")[0] in home.forkfirst("ps").out
    assert "it ended by itself" in home.forkfirst("stop", "app").err


def test_of_a_command_too(home: Home) -> None:
    """Whatever runs it, the question is the same."""
    home.start("--name", "app", "--settle", "0", "--", "sh", "-c", "exit 7")
    home.wait_alone()
    assert json.loads(home.forkfirst("status", "app", "--json").out)["ended"] == 7


def test_a_service_that_was_stopped_did_not_end_by_itself(home: Home) -> None:
    """Nor one that was started again since."""
    home.program("app.py", "async def main(context):\n    context.ready()\n    1 / 0\n")
    home.start("app.py")
    home.wait_alone()
    home.start(f"{DAEMONS}:wait", "--name", "app")
    assert home.status("app")["ended"] is None
    home.stop("app")
    assert home.forkfirst("status", "app") == (3, "app: not running\n", "")


def test_workers_that_cannot_be_kept_alive_leave_word_too(home: Home) -> None:
    """The supervisor gave up, and its log is the only other place that says so."""
    home.program(
        "app.py",
        "import time\nasync def main(context):\n    context.ready()\n    raise SystemExit(7)\n",
    )
    home.start("app.py", "--workers", "1", "--crash-limit", "2")
    home.wait_alone()
    assert json.loads(home.forkfirst("status", "app", "--json").out)["ended"] > 0


def test_status_of_what_was_killed_is_1(home: Home) -> None:
    """LSB's "dead, but its pid file is left"."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    pid = home.pid("app")
    home.end_all()
    done = home.forkfirst("status", "app")
    assert done.status == 1
    what = f"its pid file is left (pid {pid}), a start replaces it"
    assert done.out == f"app: dead; {what}; see forkfirst logs app\n"
    home.start(f"{DAEMONS}:wait", "--name", "app")


def test_what_does_not_run_cannot_be_stopped(home: Home) -> None:
    """N5: every failure has its own status; "it did not run" is not success."""
    assert home.forkfirst("stop", "app") == (3, "", 'forkfirst: "app" is not running\n')


def test_a_mistyped_name_is_recognized(home: Home) -> None:
    """A name that is nearly that of a service is a mistake far more often than another service."""
    home.start(f"{DAEMONS}:wait", "--name", "store")
    for command in ("stop", "restart", "reload", "rotate", "stacks", "forget", "logs"):
        done = home.forkfirst(command, "stroe")
        assert done.status == (66 if command == "logs" else 3)
        assert done.err.endswith("\n  did you mean store?\n")
    asked = home.forkfirst("scale", "nothing-like-it", "3")
    assert (asked.status, asked.out) == (3, "")
    assert asked.err == (
        'forkfirst: "nothing-like-it" is not running: '
        f"nobody listens on {home.state}/run/nothing-like-it.sock\n"
        "  forkfirst ps lists the services that are known\n"
    )


def test_what_runs_is_not_started_again(home: Home) -> None:
    """Its own status, and the pid of the one that runs, which goes on undisturbed."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    pid = home.pid("app")
    before = home.list_files()
    done = home.forkfirst("start", f"{DAEMONS}:wait", "--name", "app")
    assert (done.status, done.out) == (75, "")
    assert done.err == f'forkfirst: cannot start "app": already running (pid {pid})\n'
    assert list(home.list_processes()) == [pid]
    assert (home.pid("app"), home.list_files()) == (pid, before)
    assert home.status("app")["state"] == "ready"


def test_restart_gives_the_same_command_in_the_same_place(home: Home) -> None:
    """Relative paths mean what they meant, wherever the restart is typed."""
    home.program("app.py", WAITING)
    home.start("app.py", "--log", "own.log")
    first = home.pid("app")
    done = home.forkfirst("restart", "app", cwd="/")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"app: running in the background, pid {home.pid('app')}, ")
    assert home.pid("app") != first
    assert list(home.list_processes()) == [home.pid("app")]
    assert home.status("app")["log"] == f"{home.directory}/own.log"


def test_restart_starts_what_was_stopped(home: Home) -> None:
    """How it was started is known by its name for as long as it is not started otherwise."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    home.stop("app")
    assert home.forkfirst("restart", "app").status == 0
    assert home.status("app")["state"] == "ready"


def test_restart_of_what_never_was_says_so(home: Home) -> None:
    """There is nothing to give again."""
    done = home.forkfirst("restart", "app")
    assert (done.status, done.out) == (3, "")
    assert done.err == (
        'forkfirst: cannot restart "app": nothing is known of how it was started\n'
        "  start it with its target\n"
    )


def test_start_r_replaces_what_runs(home: Home) -> None:
    """With what is typed now, not with what was typed then."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    first = home.pid("app")
    home.start("-r", f"{DAEMONS}:wait_plainly", "--name", "app")
    assert list(home.list_processes()) == [home.pid("app")]
    assert home.pid("app") != first
    assert home.status("app")["runtime"] == "none"
    home.start("--restart", f"{DAEMONS}:wait", "--name", "app")
    assert home.forkfirst("restart", "app").status == 0, "the switch is not part of the record"


def test_ps_lists_the_services_of_this_user(home: Home) -> None:
    """Running, dead and stopped ones, in order."""
    assert home.forkfirst("ps") == (0, "", "no services\n")
    home.start(f"{DAEMONS}:wait", "--name", "killed")
    home.end_all()
    home.start(f"{DAEMONS}:wait", "--name", "ended")
    home.stop("ended")
    home.start(f"{DAEMONS}:serve", "--name", "running")
    lines = home.forkfirst("ps").out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "PID", "UP", "MEMORY", "STATUS"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["ended", "stopped"],
        ["killed", "dead"],
        ["running", "ready"],
    ]
    assert lines[3].split()[2] == str(home.pid("running"))
    found = json.loads(home.forkfirst("ps", "--json").out)
    states = [(one["name"], one["running"]) for one in found]
    assert states == [("ended", False), ("killed", False), ("running", True)]


def test_what_is_forgotten_is_off_the_list_but_not_what_runs(home: Home) -> None:
    """A list that only grows hides the one service that is dead."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    pid = home.pid("app")
    refused = home.forkfirst("forget", "app")
    assert refused.status == 75
    assert refused.err == (
        f"forkfirst: cannot forget app: it runs (pid {pid})\n  forkfirst stop app\n"
    )
    assert home.status("app")["running"]
    home.end_all()
    forgotten = home.forkfirst("forget", "app")
    assert forgotten == (0, f"app: forgotten; its log stays: {home.state}/app.log\n", "")
    assert home.forkfirst("ps") == (0, "", "no services\n")
    assert home.list_files() == ["app.log"]
    assert home.forkfirst("forget", "app") == (
        3,
        "",
        'forkfirst: nothing is known of a service "app"\n  forkfirst ps lists those that are\n',
    )


def test_a_record_that_cannot_be_read_hides_no_service(home: Home) -> None:
    """After a step back to an older forkfirst, what runs can still be seen and stopped."""
    for name in ("one", "two"):
        home.start(f"{DAEMONS}:wait", "--name", name)
    record = home.state / "run" / "one.service"
    record.write_text("99\0of the future\0")
    states = [(one["name"], one["state"]) for one in json.loads(home.forkfirst("ps", "--json").out)]
    assert states == [("one", "ready"), ("two", "ready")]
    home.stop("one")
    trouble = f"cannot read {record}: not a record of forkfirst, or of another version"
    assert home.forkfirst("status", "one") == (4, f"one: unknown: {trouble}\n", "")
    assert home.forkfirst("stop", "one").err == (
        f'forkfirst: "one" is not running, or not where it usually is: {trouble}\n'
        "  forkfirst forget one removes that\n"
    )
    assert home.forkfirst("forget", "one").status == 0
    assert not record.exists()
    assert home.forkfirst("ps").out.count("\n") == 2


def test_stacks_show_every_thread_and_what_each_task_waits_for(home: Home) -> None:
    """Without a debugger, and without stopping it."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    text = home.forkfirst("stacks", "app").out
    assert "context.wait_stopping" in text
    assert 'Thread "MainThread"' in text
    assert "in wait" in text


def test_stacks_begin_where_the_runtime_does(home: Home) -> None:
    """A dozen calls that lead from the command to the program say nothing about the program."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    text = home.forkfirst("stacks", "app").out
    assert re.search(r"\(main thread\).*\n  \d+ calls of forkfirst before these\n", text)
    assert "forkfirst/stages/" not in text


def test_stacks_show_where_a_loop_is_stuck(home: Home, told: Told) -> None:
    """The one moment in which somebody needs them."""
    home.program("app.py", STUCK)
    home.start("app.py")
    told.wait()
    done = home.forkfirst("stacks", "app")
    assert "blocked_here" in done.out
    assert home.forkfirst("stop", "app", "--grace-period", "0").status == 0
    assert "\n  1 call of forkfirst before these\n" in done.out


def test_logs_shows_the_last_lines(home: Home) -> None:
    """Ten, or as many as are asked for."""
    home.program(
        "app.py", "def main(context):\n    context.ready()\n    print(*range(1, 31), sep='\\n')\n"
    )
    home.start("app.py")
    home.wait_alone()
    assert home.forkfirst("logs", "app").out.split() == [str(n) for n in range(21, 31)]
    assert home.forkfirst("logs", "-n", "3", "app").out == "28\n29\n30\n"
    assert home.forkfirst("logs", "-n", "0", "app").out == ""
    assert len(home.forkfirst("logs", "-n", "99", "app").out.split()) == 30


def test_a_log_that_is_not_there_is_said_to_be_missing(home: Home) -> None:
    """Not an empty answer."""
    done = home.forkfirst("logs", "app")
    assert (done.status, done.out) == (66, "")
    missing = f"{home.state}/app.log: no such file or directory"
    assert done.err == f"forkfirst: cannot read log {missing}\n"


def test_plan_prints_each_step_and_does_nothing(home: Home) -> None:
    """Each step with its manual page, and neither a file nor a process."""
    done = home.forkfirst("plan", f"{DAEMONS}:serve", "--listen", "web=127.0.0.1:80")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "daemons: daemon"
    steps = [line for line in lines if re.match(r" +\d+\. ", line)]
    assert [int(line.split(".")[0]) for line in steps] == list(range(1, len(steps) + 1))
    assert all(re.search(r" \w+\(\d\)$", line) for line in steps)
    assert any("listen on web=127.0.0.1:80 " in line for line in steps)
    assert not home.state.exists()


def test_rotate_begins_a_new_log(home: Home) -> None:
    """And says which."""
    home.program("app.py", f"print('old')\n{WAITING}    print('new')\n")
    home.start("app.py")
    assert home.forkfirst("rotate", "app") == (0, f"app: rotated {home.state}/app.log\n", "")
    home.stop("app")
    assert (home.log("app"), (home.state / "app.log.1").read_text()) == ("new\n", "old\n")


@pytest.mark.parametrize("command", ["rotate", "stacks"])
def test_what_does_not_run_cannot_be_asked(home: Home, command: str) -> None:
    """One line, and the status that says so."""
    done = home.forkfirst(command, "app")
    assert (done.status, done.out) == (3, "")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ""),
        (("strat",), 'there is no command "strat"\n  did you mean "start"?'),
        (
            ("app.py:main", "run"),
            (
                'there is no command "app.py:main"\n'
                "  the command comes first: forkfirst run app.py:main"
            ),
        ),
        (
            ("--listen", "8000", "start", "app.py"),
            "there is no option --listen before the command\n  as in forkfirst start --listen …",
        ),
        (("start", "--zzz"), f"forkfirst start has no option --zzz{HELP.format('start')}"),
        (
            ("start", "a.py", "--lisen=web=8000"),
            "forkfirst start has no option --lisen\n  did you mean --listen?",
        ),
        (
            ("listen", "-s", "8000", "sleep", "1"),
            (
                'forkfirst listen does not know what "sleep" is\n'
                "  a command and its arguments stand after --; see forkfirst listen --help"
            ),
        ),
        (("start", "a", "--", "b"), "give either the target a or a command after --, not both"),
        (("start", "a.py", "--env", "A"), "--env A: expected NAME=VALUE"),
        (("reload",), f"forkfirst reload needs NAME{HELP.format('reload')}"),
        (
            ("logs", "a", "-n", "-1"),
            f"-n/--lines: expected 0 or more, got -1{HELP.format('logs')}",
        ),
        (
            ("run", "a.py", "--log-keep", "x"),
            f"--log-keep: expected a whole number, got 'x'{HELP.format('run')}",
        ),
    ],
)
def test_a_wrong_command_line_is_64(home: Home, words: tuple[str, ...], said: str) -> None:
    """One line and a hint, never argparse's block; nothing was forked that stays."""
    done = home.forkfirst(*words)
    assert done.status == 64
    assert done.err == (f"forkfirst: {said}\n" if said else "")
    assert (home.list_processes(), home.list_files()) == ({}, [])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("my app.py",), "\n  it is called after its program; --name gives it another name"),
        (("app.py", "--name", ""), ""),
    ],
)
def test_a_name_that_cannot_be_is_said(home: Home, words: tuple[str, ...], hint: str) -> None:
    """Also an empty one: of a variable that a script has not set, and not to be guessed."""
    done = home.forkfirst("start", *words)
    assert (done.status, done.out) == (78, "")
    assert "cannot name a service: expected 1 to 64 letters, digits" in done.err
    assert done.err.endswith(f'not beginning with "." or "-"{hint}\n')


@pytest.mark.parametrize(
    "words", [("-h",), ("start", "--help"), ("stop", "-h"), ("-V",), ("help", "scale")]
)
def test_help_is_no_failure(home: Home, words: tuple[str, ...]) -> None:
    """And forks nothing."""
    done = home.forkfirst(*words)
    assert (done.status, done.err) == (0, "")
    assert done.out
    assert home.list_processes() == {}


def test_a_terminal_without_the_characters_is_shown_escapes(home: Home) -> None:
    """What is said in another script than the terminal's never ends a command with a traceback."""
    home.environment |= {"PYTHONIOENCODING": "ascii"}
    assert home.forkfirst("--help").out.startswith("usage: forkfirst COMMAND [OPTION\\u2026]\n")
    path = home.program("app.py", WAITING.replace("ready()", "ready('h\u00f6rt')"))
    assert home.start(path).out.endswith(", h\\xf6rt\n")
    assert "  status   h\\xf6rt\n" in home.forkfirst("status", "app").out


@pytest.mark.parametrize("command", ["status", "stop", "logs"])
def test_a_directory_that_is_gone_is_no_reason_not_to_ask(home: Home, command: str) -> None:
    """Whoever is in a release that was removed can still stop what runs from it."""
    home.start(f"{DAEMONS}:wait", "--name", "app")
    gone = home.directory / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && exec "$@"'
    done = home.run("sh", "-c", script, "sh", *home.words(command, "app"))
    assert (done.status, done.err) == (0, "")


def test_a_directory_that_is_gone_is_said_where_it_is_needed(home: Home) -> None:
    """A restart would start it there: what runs is not stopped for that."""
    gone = home.directory / "gone"
    gone.mkdir()
    home.start(f"{DAEMONS}:wait", "--name", "app", cwd=gone)
    gone.rmdir()
    done = home.forkfirst("restart", "app")
    assert done.status == 71
    assert done.err == (
        f'forkfirst: cannot restart "app": it was started in {gone}, '
        "which cannot be entered: no such file or directory\n"
        "  make that directory again, or stop it and start it elsewhere\n"
    )
    assert home.status("app")["state"] == "ready"


def test_a_start_in_a_directory_that_is_gone_says_so(home: Home) -> None:
    """A shell shows the name of the directory all the same, so the person cannot know."""
    gone = home.directory / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && exec "$@"'
    done = home.run("sh", "-c", script, "sh", *home.words("start", f"{DAEMONS}:wait"))
    assert (done.status, done.out) == (71, "")
    assert done.err == (
        "forkfirst: cannot go on: the current directory was removed\n"
        "  change to one that is there\n"
    )


MANNERS = {
    "with every warning an error": {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"},
    "without asserts and docstrings": {"PYTHONOPTIMIZE": "2"},
    "with hash randomization off and no user site": {
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
    },
    "in another locale": {"LC_ALL": "tr_TR.UTF-8", "LANG": "C"},
    "without buffers": {"PYTHONUNBUFFERED": "1"},
    "with almost nothing": {"HOME": "", "PATH": "/nosuch"},
}


@pytest.mark.parametrize("manner", MANNERS)
def test_it_is_the_same_however_the_interpreter_is_run(home: Home, manner: str) -> None:
    """No warning, no assert and no variable is needed for a start to be right."""
    home.environment |= MANNERS[manner]
    home.start(f"{DAEMONS}:serve", "--name", "app", "--listen", "web=127.0.0.1:0")
    assert talk(home.address("app")) == b"hello\n"
    done = home.forkfirst("restart", "app")
    assert (done.status, done.err) == (0, "")
    home.stop("app")
    assert home.list_processes() == {}
    assert home.log("app") == ""
