"""The template with real processes: one import, workers of their own, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.service_home import PATIENCE, PROGRAMS, holding, wait_gone
from support.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from support.service_home import Home, Told

PROGRAM = PROGRAMS / "preloaded.py"
THREAD = """
import threading, queue
asked, answered = queue.Queue(), queue.Queue()
def answer():
    while True:
        answered.put(asked.get())
threading.Thread(target=answer, name="pump", daemon=True).start()
asked.put(1), answered.get()
async def main(context):
    asked.put(2)
    answered.get()
    context.ready()
    await context.wait_stopping()
"""
LOOP = """
import asyncio
loop = asyncio.new_event_loop()
async def main(context):
    context.ready()
    await context.wait_stopping()
"""


def _start(home: Home, told: Told, *flags: object, workers: int = 2) -> list[dict[str, Any]]:
    """Start "app" from a template; return what its workers tell, in the order of their start."""
    home.start(f"{PROGRAM}:serve", "--name", "app", "--workers", workers, "--preload", *flags)
    assert told.wait().startswith("imported ")
    return [_hear_ready(told) for _ in range(workers)]


def _hear_ready(told: Told) -> dict[str, Any]:
    word, _, text = told.wait().partition(" ")
    assert word == "ready", text
    found: dict[str, Any] = json.loads(text)
    return found


def _template(home: Home) -> int:
    """Return the pid of the template that is ready."""
    text = _wait_until(home, lambda found: found["preload"].startswith("by the template"))
    return int(text["preload"].rpartition(" ")[2])


def _wait_until(home: Home, holds: Any) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while not holds(found := home.status("app")):
        assert time.monotonic() < deadline, found
    return found


def _group(home: Home, pid: int) -> list[int]:
    """Return who else is in the process group of the template *pid*: its spare."""
    return [one for one in home.list_processes() if one != pid and os.getpgid(one) == pid]


def _wait_for_spare(home: Home, template: int) -> int:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = _group(home, template)
        if len(found) == 1 and home.pid("app") == _parent(found[0]):
            return found[0]
        assert time.monotonic() < deadline


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - as short as can be
        return int(file.read().rpartition(")")[2].split()[1])


def test_the_program_is_imported_once_for_all_workers(home: Home, told: Told) -> None:
    """That is what a template is for: nobody else tells of an import, a replacement included."""
    first, second, third = _start(home, told, workers=3)
    assert len({first["pid"], second["pid"], third["pid"]}) == 3
    os.kill(second["pid"], signal.SIGKILL)
    fourth = _hear_ready(told)  # and not "imported"
    assert fourth["pid"] not in (first["pid"], second["pid"], third["pid"])


def test_what_must_be_a_workers_own_is(home: Home, told: Told) -> None:
    """Random numbers that repeat are a hole; a mask or a handler that stays is a deaf worker."""
    first, second = _start(home, told)
    for key in ("random", "numpy", "temporary"):
        assert first[key] != second[key], key
    assert 1 not in (first["numpy"], second["numpy"])
    for one in (first, second):
        assert (one["blocked"], one["usr1"], one["usr2"]) == ([], True, True)
        assert (one["gc"], one["frozen"], one["group"]) == (True, True, True)
    assert first["descriptors"] == second["descriptors"]
    os.kill(first["pid"], signal.SIGUSR2)
    assert told.wait() == "usr2"  # the program's own handler, set when it was imported


def test_every_worker_is_the_supervisors_child(home: Home, told: Told) -> None:
    """Who waits for it must know its status, whatever has become of the template."""
    pids = {one["pid"] for one in _start(home, told)}
    assert {_parent(pid) for pid in pids} == {home.pid("app")}
    done = home.forkfirst(
        *("run", f"{PROGRAM}:leave", "--name", "other", "--workers", 1),
        *("--preload", "--restart-policy", "never"),
    )
    assert done.status == 3, done


def test_a_signal_to_the_spare_is_not_the_workers(home: Home, told: Told) -> None:
    """A whole session may be signalled; who becomes a worker later was not meant."""
    (worker,) = _start(home, told, workers=1)
    spare = _wait_for_spare(home, _template(home))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        os.kill(spare, number)
    os.kill(worker["pid"], signal.SIGKILL)
    assert _hear_ready(told)["pid"] == spare
    assert _wait_until(home, lambda found: found["state"] == "ready")


# -- what cannot be forked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [(THREAD, "1 Python thread: pump"), (LOOP, "an event loop created, not running")],
)
def test_an_import_that_starts_something_is_named_and_refused_if_that_is_asked(
    home: Home, text: str, named: str
) -> None:
    """What, which line, and what to do; and nothing is left of the attempt."""
    program = home.program("app.py", text)
    done = home.forkfirst("start", program, "--workers", 2, "--preload=require")
    assert done.status == 70, done
    assert named in done.err
    assert "app.py:" in done.err
    assert "do: " in done.err
    assert "--preload" in done.err
    assert "Traceback" not in done.err
    assert home.list_processes() == {}
    assert home.list_files() == []


def test_the_example_is_refused_and_its_mended_form_is_taken(home: Home) -> None:
    """As the page for people says, word for word."""
    folder = ROOT / "examples" / "preload"
    flags = ("--workers", 1, "--preload=require")
    done = home.forkfirst("start", f"{folder / 'starts_at_import.py'}:main", *flags)
    page = (ROOT / "docs" / "how-to" / "share-memory-between-workers.md").read_text()
    assert done.status == 70
    assert done.err in page
    assert home.forkfirst("start", f"{folder / 'starts_in_main.py'}:main", *flags).status == 0


def test_or_else_the_workers_are_plain_and_it_is_said_once(home: Home) -> None:
    """In the log in full, and in the status; the service serves all the same."""
    home.start(home.program("app.py", THREAD), "--workers", 2, "--preload")
    found = _wait_until(home, lambda found: "app.py:7" in found["preload"])
    assert found["preload"].startswith("fell back: 1 Python thread: pump")
    assert [one["state"] for one in found["workers"]] == ["ready", "ready"]
    home.forkfirst("scale", "app", 3)
    _wait_until(home, lambda found: len(found["workers"]) == 3)
    assert home.log("app").count("fell back to plain workers") == 1
    assert "preload  fell back: " in home.forkfirst("status", "app").out


def test_without_the_guard_such_a_worker_hangs(home: Home) -> None:
    """Shown to fail without the property: nobody pumps in a child of that fork."""
    blind = "from forkfirst.guard import verdict\nverdict.find_hazards = lambda **_: ()\n"
    program = home.program("app.py", blind + THREAD)
    done = home.forkfirst(
        "start", program, "--workers", 1, "--preload=require", "--ready-timeout", "0.7s"
    )
    assert done.status == 124, done
    assert "answered.get()" in done.err


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("raise RuntimeError('no database')\n", 70, "the program failed before it was ready"),
        ("raise SystemExit(5)\n", 5, "the program ended with status 5 before it was ready"),
        ("import os\nos.kill(os.getpid(), 9)\n", 137, "was killed by SIGKILL before it was ready"),
        ("async def other(context):\n    pass\n", 66, "has no 'main'"),
    ],
)
def test_an_import_that_fails_is_told_as_ever(
    home: Home, text: str, status: int, said: str
) -> None:
    """The words and the status of a service without a template, once, and nothing left."""
    done = home.forkfirst("start", home.program("app.py", text), "--workers", 3, "--preload")
    assert done.status == status, done
    assert said in done.err
    assert done.err.count("RuntimeError: no database") == (1 if "Runtime" in text else 0)
    assert home.list_processes() == {}
    assert home.list_files() == []


def test_an_import_that_hangs_shows_where(home: Home) -> None:
    """The template has no thread that could answer; a signal asks it."""
    program = home.program("app.py", "import time\ntime.sleep(600)\n")
    done = home.forkfirst("start", program, "--workers", 2, "--preload", "--ready-timeout", "0.5s")
    assert done.status == 124, done
    assert "time.sleep(600)" in done.err
    assert home.list_processes() == {}


# -- whoever is killed -----------------------------------------------------------------------------


def test_a_killed_template_is_made_again_and_nobody_notices(home: Home, told: Told) -> None:
    """The workers are not its children any more; the next one must come from somewhere."""
    workers = [one["pid"] for one in _start(home, told)]
    template = _template(home)
    spare = _wait_for_spare(home, template)
    with holding(spare) as pidfd:
        os.kill(template, signal.SIGKILL)
        assert told.wait().startswith("imported ")
        assert pidfd is not None
        wait_gone(pidfd)
    assert _template(home) != template
    assert sorted(one["pid"] for one in home.status("app")["workers"]) == sorted(workers)
    assert f"the template (pid {template}) was killed by SIGKILL" in home.log("app")
    os.kill(_template(home), signal.SIGKILL)  # soon again: not before somebody needs one
    _wait_until(home, lambda found: "has ended" in found["preload"])
    os.kill(workers[0], signal.SIGKILL)
    assert told.wait().startswith("imported ")
    _hear_ready(told)


def test_a_killed_spare_is_replaced(home: Home, told: Told) -> None:
    """A worker that is wanted then is only late."""
    (worker,) = _start(home, told, workers=1)
    template = _template(home)
    os.kill(_wait_for_spare(home, template), signal.SIGKILL)
    os.kill(worker["pid"], signal.SIGKILL)
    _hear_ready(told)
    assert _template(home) == template


def test_who_is_wanted_while_template_and_spare_are_killed_comes_from_the_next_one(
    home: Home, told: Told
) -> None:
    """The wish was with them; that they take it along is no failure of the worker."""
    (worker,) = _start(home, told, workers=1)
    template = _template(home)
    spare = _wait_for_spare(home, template)
    os.kill(template, signal.SIGSTOP)
    os.kill(spare, signal.SIGSTOP)
    os.kill(worker["pid"], signal.SIGKILL)
    _wait_until(home, lambda found: [one["state"] for one in found["workers"]] == ["starting"])
    os.killpg(template, signal.SIGKILL)
    assert told.wait().startswith("imported ")
    assert _hear_ready(told)["pid"] != spare
    assert home.status("app")["workers"][0]["attempts"] <= 1  # its own death, and no other
    assert home.log("app").count("was killed by SIGKILL") == 2  # the worker and the template


@pytest.mark.parametrize("when", ["serving", "importing"])
def test_when_the_supervisor_is_killed_nothing_is_left_in_a_second(
    home: Home, told: Told, when: str
) -> None:
    """Neither the template, nor its spare, nor a worker keeps anything: the kernel ends them."""
    process = None
    if when == "serving":
        _start(home, told, "--listen", "web=127.0.0.1:0")
        _wait_for_spare(home, _template(home))
        supervisor = home.pid("app")
    else:
        text = "import os, time\nopen(os.environ['TELL'], 'w').write('x\\n')\ntime.sleep(600)\n"
        words = ("--name", "app", "--workers", 2, "--preload")
        process = home.open(*home.words("run", home.program("app.py", text), *words))
        told.wait()
        supervisor = process.pid
    others = [pid for pid in home.list_processes() if pid != supervisor]
    assert len(others) == (4 if when == "serving" else 1)
    os.kill(supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 1.0
    while set(home.list_processes()) & set(others):
        assert time.monotonic() < deadline
    if process is not None:
        process.wait()


def test_a_template_that_imports_does_not_hold_up_a_stop(home: Home, told: Told) -> None:
    """Nobody who waits to be forked has anything to finish."""
    text = "import os, time\nopen(os.environ['TELL'], 'w').write('x\\n')\ntime.sleep(600)\n"
    words = ("--name", "app", "--workers", 2, "--preload")
    process = home.open(*home.words("run", home.program("app.py", text), *words))
    told.wait()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    assert time.monotonic() - began < 5.0  # the grace period is 10
    assert home.list_processes() == {}


# -- a reload ----------------------------------------------------------------------------------


def _write(home: Home, word: str) -> Path:
    main = f"async def main(context):\n    context.ready('{word}')\n"
    return home.program("app.py", f"{main}    await context.wait_stopping()\n{'#' * len(word)}\n")


def test_a_reload_makes_a_template_of_the_new_code_and_ends_the_old_one(home: Home) -> None:
    """The supervisor has never imported the program, so its next fork is new code."""
    program = _write(home, "first")
    home.start(program, "--workers", 2, "--preload")
    template = _template(home)
    _write(home, "changed")
    assert home.forkfirst("reload", "app").status == 0
    found = _wait_until(home, lambda found: len(found["workers"]) == 2)
    assert {one["status"] for one in found["workers"]} == {"changed"}
    assert _template(home) != template
    assert template not in home.list_processes()


def test_a_reload_into_code_that_cannot_be_preloaded_changes_nothing(home: Home) -> None:
    """As asked: `require` holds for every generation."""
    home.start(_write(home, "first"), "--workers", 2, "--preload=require")
    template = _template(home)
    home.program("app.py", THREAD)
    done = home.forkfirst("reload", "app")
    assert done.status == 70, done
    assert "1 Python thread: pump" in done.err
    assert _template(home) == template
    assert {one["status"] for one in home.status("app")["workers"]} == {"first"}


def test_an_upgrade_ends_the_template_and_the_next_worker_brings_a_new_one(
    home: Home, told: Told
) -> None:
    """The workers are the supervisor's own children, so nothing happens to them."""
    workers = sorted(one["pid"] for one in _start(home, told))
    template = _template(home)
    _wait_for_spare(home, template)
    assert home.forkfirst("upgrade", "app").status == 0
    assert sorted(one["pid"] for one in home.status("app")["workers"]) == workers
    os.kill(workers[0], signal.SIGKILL)
    assert told.wait().startswith("imported ")
    fresh = _hear_ready(told)["pid"]
    assert _template(home) != template
    assert _parent(fresh) == home.pid("app")


def test_a_worker_that_is_forked_after_a_rotation_writes_to_the_new_log(home: Home) -> None:
    """Its template was there before, and so was its spare."""
    home.start(_write(home, "first"), "--workers", 1, "--preload")
    template = _template(home)
    spare = _wait_for_spare(home, template)
    home.forkfirst("rotate", "app")
    log = os.stat(home.state / "app.log")  # noqa: PTH116 - compared to that of a descriptor
    deadline = time.monotonic() + PATIENCE
    for pid in (template, spare):
        while not os.path.samestat(os.stat(f"/proc/{pid}/fd/1"), log):  # noqa: PTH116 - as above
            assert time.monotonic() < deadline


# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("app.py:main", "--preload"), "preload means nothing without workers"),
        (
            ("--workers", "2", "--preload", "--", "sleep", "9"),
            "preload means nothing for a command",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(home: Home, words: tuple[str, ...], said: str) -> None:
    """An option that does nothing hides a mistake."""
    _write(home, "first")
    done = home.forkfirst("start", *words)
    assert (done.status, said in done.err) == (78, True), done


@pytest.mark.parametrize(("value", "meant"), [("true", "else leave"), ('"require"', "else refuse")])
def test_the_configuration_says_it_too(home: Home, value: str, meant: str) -> None:
    """By the flag's name; and the plan shows who does what."""
    text = f'[service.app]\ntarget = "app.py:main"\nworkers = 2\npreload = {value}\n'
    home.program("forkfirst.toml", text)
    _write(home, "first")
    out = home.forkfirst("plan", "app").out
    assert "in the template:" in out
    assert meant in out
    home.program("forkfirst.toml", text.replace(value, '"maybe"'))
    done = home.forkfirst("plan", "app")
    assert done.status == 78
    assert """expected true, false or "require", got 'maybe'""" in done.err
