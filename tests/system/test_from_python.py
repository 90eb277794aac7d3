"""A service that is declared in Python, and carries its own commands."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.service_home import PATIENCE, PROGRAMS, talk

if TYPE_CHECKING:
    from support.service_home import Done, Home

OWN = PROGRAMS / "own_service.py"


def own(home: Home, *words: object) -> Done:
    return home.run(sys.executable, OWN, *words)


def test_the_program_starts_answers_and_stops_itself(home: Home) -> None:
    """`python app.py start|status|restart|stop`, with the statuses of the command."""
    started = own(home, "start")
    pid = home.pid("own")
    assert (started.status, started.err) == (0, "")
    assert started.out.startswith(f"own: running in the background, pid {pid}, ready after ")
    assert started.out.endswith(", serving its own\n")
    assert talk(home.address("own")) == b"hello\n"
    assert own(home, "status").out.startswith(f"own: ready, pid {pid}, ")
    assert own(home, "start").status == 75
    assert own(home, "restart").status == 0
    assert list(home.list_processes()) == [home.pid("own")] != [pid]
    pid = home.pid("own")
    assert own(home, "stop").out == f"own: stopped (pid {pid})\n"
    assert home.list_processes() == {}
    assert own(home, "status").status == 3


def test_the_command_knows_it_by_its_name(home: Home) -> None:
    """It is a service like any other: `forkfirst` sees, restarts and stops it."""
    assert own(home, "start").status == 0
    assert home.status("own")["status"] == "serving its own"
    assert home.forkfirst("restart", "own", cwd="/").status == 0
    home.stop("own")
    assert home.list_processes() == {}


def test_start_r_f_and_plan_are_there_too(home: Home) -> None:
    """The switches that do not declare."""
    assert own(home, "start").status == 0
    first = home.pid("own")
    assert own(home, "start", "-r").status == 0
    assert home.pid("own") != first
    planned = own(home, "plan")
    assert planned.out.startswith("own: daemon\n")
    assert own(home, "plan", "-f").out.startswith("own: foreground\n")


def test_a_module_that_was_run_is_run_again_by_a_restart(home: Home) -> None:
    """`python -m package.app start`: by its file it would not find its package."""
    package = home.directory / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "near.py").write_text("STATUS = 'from near'\n")
    (package / "app.py").write_text(
        "import forkfirst\nfrom . import near\n"
        "async def serve(c):\n    c.ready(status=near.STATUS)\n    await c.wait_stopping()\n"
        "if __name__ == '__main__':\n    forkfirst.Service(program=serve, name='own').main()\n"
    )
    home.environment["PYTHONPATH"] = f"{home.directory}:{home.environment.get('PYTHONPATH', '')}"
    assert home.run(sys.executable, "-m", "package.app", "start").status == 0
    done = home.forkfirst("restart", "own")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith(", from near\n")


def test_run_is_the_foreground(home: Home) -> None:
    """`forkfirst.run(main)`: SIGTERM ends it well, with status 0 and nothing left."""
    path = home.program(
        "app.py",
        "import forkfirst\n"
        "async def main(context):\n    print('here', flush=True)\n    context.ready()\n"
        "    await context.wait_stopping()\n    print('gone')\n"
        "if __name__ == '__main__':\n    forkfirst.run(main, name='app')\n",
    )
    process = home.open(sys.executable, path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    assert home.pid("app") == process.pid
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"gone\n")
    assert home.list_files() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no command was given; own_service.py has start, run, "),
        (("strat",), 'there is no command "strat"; own_service.py has start, run, '),
        (("start", "--listen", "8000"), "own_service.py start does not know --listen"),
        (("stop", "--nosuch"), "own_service.py stop has no option --nosuch"),
        (("stop", "own"), 'own_service.py stop does not know what "own" is'),
    ],
)
def test_a_wrong_command_line_is_64(home: Home, words: tuple[str, ...], said: str) -> None:
    """And what is known here."""
    done = own(home, *words)
    assert (done.status, done.out) == (64, "")
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--help",), "usage: own_service.py COMMAND [OPTION…]\n"),
        (("start", "--help"), "usage: own_service.py start [OPTION…]\n"),
        (("stop", "-h"), "usage: own_service.py stop [OPTION…]\n"),
        (("scale", "--help"), "usage: own_service.py scale [OPTION…] WORKERS\n"),
    ],
)
def test_help_is_of_the_program(home: Home, words: tuple[str, ...], said: str) -> None:
    """Under its own name, without the one of the service: that is its own to know."""
    done = own(home, *words)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(said)
    assert "NAME" not in done.out
    assert home.list_processes() == {}


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("listen=('nowhere:x',)", "listen: "),
        ("runtime='curio'", "runtime 'curio' is not one of"),
        ("name='a/b'", "'a/b' cannot name a service"),
        ("grace_period=0", "grace"),
    ],
)
def test_a_wrong_declaration_is_one_line(home: Home, field: str, said: str) -> None:
    """78, when it is used; to import it is always allowed."""
    text = "import forkfirst\nasync def main(): pass\n"
    path = home.program(
        "app.py", f"{text}if __name__ == '__main__':\n    forkfirst.run(main, {field})\n"
    )
    done = home.run(sys.executable, path)
    assert (done.status, done.out) == (78, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_declaration_that_is_imported_does_nothing(home: Home) -> None:
    """No process, no file, no runtime, and next to no module."""
    program = (
        "import sys\nsys.path.insert(0, sys.argv[1])\nbefore = set(sys.modules)\n"
        "import own_service\n"
        "costly = {'asyncio', 'socket', 'argparse', 'threading', 'subprocess'}\n"
        "print(sorted(costly & (set(sys.modules) - before)))\n"
    )
    done = home.run(sys.executable, "-c", program, PROGRAMS)
    assert done.out == "[]\n"
    assert (home.list_processes(), home.state.exists()) == ({}, False)


def test_the_script_that_is_installed_does_what_the_module_does(home: Home) -> None:
    """`forkfirst` on the PATH, and `python -m forkfirst`."""
    script = shutil.which("forkfirst", path=f"{sys.exec_prefix}/bin")
    if script is None:
        pytest.skip("it is not installed")
    done = home.run(script, "start", f"{PROGRAMS / 'daemons.py'}:wait", "--name", "app")
    assert (done.status, done.err) == (0, "")
    assert home.run(script, "stop", "app").status == 0
    assert home.run(script, "--version") == home.forkfirst("--version")
