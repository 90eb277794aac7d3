"""`--watch`: an edit changes who answers, and no client ever notices more than that."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from support.service_home import wait_gone
from support.watching import SERVICE, SOURCE, Load, connect, open_watching, watching, write_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.service_home import Home
    from support.watching import Watching

HERE = ("--watch",)
PYTHON = (sys.executable, "-I", "-S")


# -- an edit --------------------------------------------------------------------------------------


def test_edits_under_load_lose_no_connection(home: Home) -> None:
    """What a server that is stopped and started again refuses, and one that is killed resets."""
    with watching(home, *HERE) as watched, Load(watched.port, clients=4) as load:
        load.wait_for_answers(20)
        for version in ("two", "three", "four"):
            watched.edit(version)
            watched.wait_for_change_of_guard()
            load.wait_for_answers(20)
            assert watched.ask()[0] == version
    assert load.failures == []
    versions = list(dict.fromkeys(version for version, _ in load.answers))
    assert versions == ["one", "two", "three", "four"]


def test_without_holding_the_sockets_connections_are_lost(home: Home) -> None:
    """Shown to fail without the property: the same program, stopped as if to be started again."""
    write_version(home, "one", "app.py")
    words = home.words("listen", "-s", "0", "--", *PYTHON, "app.py")
    with open_watching(home, *words, SILENT="1") as served:
        port = int(served.wait_for(r"127\.0\.0\.1:(\d+) is descriptor 3")[1])
        with Load(port, clients=4) as load:
            load.wait_for_answers(20)
            assert served.end() == 0
            load.wait_for_failure()


def test_a_silent_command_is_good_when_it_has_settled(home: Home) -> None:
    """Most say nothing; living for a while is all that can be asked of them."""
    with watching(home, *HERE, "--settle", "200ms", SILENT="1") as watched:
        _, before = watched.ask()
        watched.edit("two")
        assert watched.wait_for_change_of_guard() == before
        assert watched.ask()[0] == "two"


@pytest.mark.parametrize(
    ("broken", "said"),
    [("def (", "SyntaxError"), ("raise OSError('no disk')", "OSError: no disk")],
)
def test_a_broken_edit_keeps_the_last_good_process(home: Home, broken: str, said: str) -> None:
    """The error is shown, and there is somebody who answers while it is mended."""
    with watching(home, *HERE) as watched, Load(watched.port, clients=2) as load:
        load.wait_for_answers(5)
        before = load.answers[-1]
        watched.edit("two", source=f"{broken}\n{SOURCE}")
        watched.wait_for(said)
        watched.wait_for(rf"status 1 before it was ready: pid {before[1]} serves on")
        load.wait_for_answers(20)
        assert watched.ask() == before
        watched.edit("three")
        assert watched.wait_for_change_of_guard() == before[1]
        load.wait_for_answers(20)
        assert watched.ask()[0] == "three"
    assert load.failures == []


def test_one_that_spoke_once_must_say_that_it_is_ready(home: Home) -> None:
    """That it lives is not enough then; and what is never ready is stopped."""
    with watching(home, *HERE, "--settle", "50ms", "--ready-timeout", "300ms") as watched:
        before = watched.ask()
        mute = SOURCE.replace("    _say_ready()", "    pass")
        watched.edit("two", source=mute)
        watched.wait_for(rf"not ready after 0\.3 s: pid {before[1]} serves on")
        watched.edit("three")
        assert watched.wait_for_change_of_guard() == before[1]
        assert watched.ask()[0] == "three"


def test_an_open_connection_holds_nothing_up(home: Home) -> None:
    """A browser's keep-alive kept other reloaders waiting for ever."""
    with (
        watching(home, *HERE, "--grace-period", "300ms", HOLD="1") as watched,
        connect(watched.port) as kept,
        kept.makefile("rw") as lines,
    ):
        lines.write("?\n")
        lines.flush()
        version, old = lines.readline().split()
        watched.edit("two")
        watched.wait_for(rf"serves, pid {old} stops")
        assert watched.ask()[0] == "two"
        watched.wait_for(rf"killed pid {old}: not stopped after 0\.3 s")
        assert (version, lines.readline()) == ("one", "")


def test_a_first_start_that_fails_waits_for_an_edit(home: Home) -> None:
    """Whoever watches is about to mend it."""
    write_version(home, "one", "app.py", source=f"raise OSError\n{SOURCE}")
    with watching(home, *HERE) as watched:
        watched.wait_for("status 1 before it was ready: waiting for a change")
        watched.edit("two")
        assert watched.ask()[0] == "two"  # it waited in the queue of a socket that is held


def test_one_that_ends_by_itself_is_started_at_the_next_edit(home: Home) -> None:
    """And its status is the one that counts, if there is none."""
    with watching(home, *HERE, STATUS="7") as watched:
        _, pid = watched.ask()
        os.kill(pid, signal.SIGTERM)
        watched.wait_for(rf"pid {pid} exited with status 7: waiting for a change")
        watched.edit("two")
        assert watched.ask()[0] == "two"


# -- what is an edit ------------------------------------------------------------------------------


def test_caches_and_editors_own_files_are_no_edits(home: Home) -> None:
    """Each would be a restart that nobody asked for; some would never end."""
    for folder in ("__pycache__", ".git", "node_modules"):
        (home.directory / folder).mkdir()
    with watching(home, *HERE) as watched:
        pid = watched.ask()[1]
        for name in (
            *("__pycache__/app.pyc", ".git/index", "node_modules/x.js", "app.py~", ".app.py.swp"),
            *("#app.py#", "4913", "run.log", "run.pid", "data.sqlite3", "data.db-wal", "sedXy12zQ"),
        ):
            home.program(name, "x")
        watched.edit("two")
        watched.wait_for(r"forkfirst: app\.py changed")
        assert watched.wait_for_change_of_guard() == pid


def test_what_the_command_writes_itself_is_no_edit(home: Home) -> None:
    """Its output, sent to a file beside the source, would start it again without end."""
    writing = SOURCE.replace(
        "STOPPED: list", "DATA = open('data.out', 'w')\nSTOPPED: list"
    ).replace("taken.setblocking", "DATA.write('x'); DATA.flush(); taken.setblocking")
    write_version(home, "one", "app.py", source=writing)
    with watching(home, *HERE) as watched:
        for _ in range(3):
            pid = watched.ask()[1]
        watched.edit("two", source=writing)
        watched.wait_for(r"forkfirst: app\.py changed")
        assert watched.wait_for_change_of_guard() == pid


def test_one_file_can_be_watched(home: Home) -> None:
    """Also when an editor replaces it: its inode is not what was asked for."""
    with watching(home, "--watch", "app.py") as watched:
        home.program("other.py", "x")
        watched.edit("two")
        watched.wait_for(r"forkfirst: app\.py changed")
        watched.wait_for_change_of_guard()
        watched.edit("three")
        watched.wait_for_change_of_guard()
        assert watched.ask()[0] == "three"


def test_several_places_can_be_watched(home: Home) -> None:
    """After one flag, or after one each; what is elsewhere does not count."""
    for folder in ("a", "b", "c"):
        (home.directory / folder).mkdir()
    with watching(home, "--watch", "a", "--watch", "b", "app.py") as watched:
        home.program("c/x.py", "x")
        for name in ("a/x.py", "b/x.py"):
            home.program(name, "x")
            watched.wait_for(rf"forkfirst: {name} changed")
            watched.wait_for("serves")


def test_a_project_below_a_folder_with_an_ignored_name_is_watched(home: Home) -> None:
    """Only what is below the watched folder is looked at, not what it is below."""
    below = home.directory / "node_modules" / "mine"
    below.mkdir(parents=True)
    with watching(home, "--watch", below) as watched:
        home.program("node_modules/mine/x.py", "x")
        watched.wait_for(r"node_modules/mine/x\.py changed")


def test_a_path_that_is_not_there_is_an_error(home: Home) -> None:
    """Rather than a watch that sees nothing."""
    done = home.forkfirst("listen", "-s", "./x.sock", "--watch", "no-such", "--", "true")
    assert done.status == errors.TargetError.exit_status
    assert "cannot watch no-such" in done.err
    assert not (home.directory / "x.sock").exists()


def test_without_watchfiles_it_says_what_to_install(home: Home) -> None:
    """It is an extra."""
    program = (
        "import sys; sys.modules['watchfiles'] = None; sys.argv[0] = 'forkfirst'\n"
        "from forkfirst.__main__ import main; main()"
    )
    done = home.run(sys.executable, "-c", program, "listen", "--watch", "--", "true")
    assert done.status == errors.UsageError.exit_status
    assert "pip install 'forkfirst[watch]'" in done.err


# -- a service of ours ----------------------------------------------------------------------------


@contextmanager
def watching_service(home: Home, *words: str) -> Iterator[Watching]:
    write_version(home, "one", "app.py", source=SERVICE)
    with open_watching(home, *home.words("run", "--listen", "web=0", *words)) as watched:
        watched.port = int(watched.wait_for(r"web listens on 127\.0\.0\.1:(\d+)")[1])
        watched.wait_for("watching")
        yield watched


def test_a_service_of_ours_loses_no_connection(home: Home) -> None:
    """Its listeners are the watch's, and are passed to each start by their names."""
    with watching_service(home, "--watch", "app.py:main") as watched:
        with Load(watched.port, clients=4) as load:
            load.wait_for_answers(20)
            for version in ("two", "three"):
                watched.edit(version, source=SERVICE)
                watched.wait_for_change_of_guard()
                load.wait_for_answers(20)
            watched.edit("four", source=f"def (\n{SERVICE}")
            watched.wait_for("SyntaxError")
            watched.wait_for(r"before it was ready: pid \d+ serves on")
            load.wait_for_answers(20)
        assert load.failures == []
        assert watched.ask()[0] == "three"
        assert watched.end() == 0
    assert home.list_processes() == {}
    assert home.list_files() == []


@pytest.mark.parametrize(
    "words",
    [
        ("app.py", "--watch"),
        ("--watch", "app.py"),
        ("--watch", "below", "app.py:main"),
        ("app.py:main", "--watch", "below", "--name", "x"),
        ("--watch=below", "--watch", "app.py:main"),
    ],
    ids=" ".join,
)
def test_the_target_and_the_paths_are_told_apart(home: Home, words: tuple[str, ...]) -> None:
    """`run --watch app.py:main` runs it; a folder is watched."""
    (home.directory / "below").mkdir()
    with watching_service(home, *words) as watched:
        home.program("below/x.py" if "below" in str(words) else "x.py", "x")
        watched.wait_for(r"x\.py changed")
        watched.wait_for_change_of_guard()
        assert watched.ask()[0] == "one"


def test_a_command_of_ours_is_watched_too(home: Home) -> None:
    """With `run`, so with all that a declaration can say."""
    write_version(home, "one", "app.py")
    whole = home.words("run", "--name", "x", "--listen", "web=0", "--watch", ".", "--")
    with open_watching(home, *whole, *PYTHON, "app.py") as watched:
        watched.port = int(watched.wait_for(r"x: web listens on 127\.0\.0\.1:(\d+)")[1])
        assert watched.ask()[0] == "one"
        watched.edit("two")
        watched.wait_for_change_of_guard()
        assert watched.ask()[0] == "two"
        assert watched.end() == 0


# -- the end --------------------------------------------------------------------------------------


def test_ctrl_c_ends_all(home: Home) -> None:
    """Nothing runs on, and no path stays."""
    with watching(home, "-s", "./x.sock", *HERE) as watched:
        watched.ask()
        assert (home.directory / "x.sock").is_socket()
        assert watched.end(signal.SIGINT) == 128 + signal.SIGINT  # the program's default
    assert home.list_processes() == {}
    assert not (home.directory / "x.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_status_is_the_commands_own(home: Home, number: int) -> None:
    """A hang-up ends it too: its terminal is gone."""
    with watching(home, *HERE, STATUS="7") as watched:
        watched.ask()
        assert watched.end(number) == 7


def test_a_second_ctrl_c_does_not_wait(home: Home) -> None:
    """The first left it its grace period, which is long."""
    with (
        watching(home, *HERE, "--grace-period", "1h", HOLD="1") as watched,
        connect(watched.port) as kept,
        kept.makefile("rw") as lines,
    ):
        lines.write("?\n")
        lines.flush()
        pid = int(lines.readline().split()[1])
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        for _ in range(400):  # two within 0.3 s would be one
            watched.process.send_signal(signal.SIGTERM)
            if poll.poll(100):
                break
        wait_gone(pidfd)
        os.close(pidfd)
        assert watched.finish() == 128 + signal.SIGKILL


def test_what_a_process_leaves_behind_is_ended(home: Home) -> None:
    """A shell's background job would go on accepting with the old code."""
    line = "app() { exec " + " ".join(PYTHON) + " app.py; }; app & wait"
    with watching(home, *HERE, command=("sh", "-c", line)) as watched:
        version, old = watched.ask()
        pidfd = os.pidfd_open(old)
        watched.edit("two")
        watched.wait_for(r"pid \d+ serves")
        wait_gone(pidfd)
        os.close(pidfd)
        assert (version, watched.ask()[0]) == ("one", "two")
        watched.end()
    assert home.list_processes() == {}


def test_a_command_that_is_not_there_ends_it_at_once(home: Home) -> None:
    """No edit of a file will mend a word of the command line."""
    done = home.forkfirst("listen", "-s", "./x.sock", *HERE, "--", "forkfirst-no-such-command")
    assert done.status == errors.TargetError.exit_status
    assert not (home.directory / "x.sock").exists()


def test_a_debugger_gets_the_terminal(home: Home) -> None:
    """The kernel stops a background process that reads; it is lent the terminal then."""
    master, slave = pty.openpty()
    asking = "print('hello', input('name? '), flush=True)\n"
    home.program("app.py", asking)
    program = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = home.words("listen", "--watch", "--", *PYTHON, "app.py")
    with home.open(
        *PYTHON, "-c", program, *words, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        said = ""
        while "name? " not in said:
            said += os.read(master, 4096).decode()
        os.write(master, b"you\n")
        while "hello you" not in said:
            said += os.read(master, 4096).decode()
        while "waiting for a change" not in said:
            said += os.read(master, 4096).decode()
        os.write(master, b"\x03")  # the terminal is ours again, so Ctrl-C reaches the watch
        assert process.wait(30) == 0
    os.close(master)
