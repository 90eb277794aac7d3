"""Reloads where whoever asks has less than whoever started: another user, another pid namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import other_user
from support.hello import ask, write
from support.load import Load
from support.service_home import PATIENCE, talk

if TYPE_CHECKING:
    from support.service_home import Home

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, or makes a namespace"),
]

CONTAINER = ("unshare", "--fork", "--kill-child", "--pid", "--mount-proc")


# -- process 1 of a container -------------------------------------------------------------------


def test_process_1_without_a_place_for_its_files_says_what_to_do(home: Home) -> None:
    """The first error of a container whose user has no home, where nobody can look around."""
    home.environment |= {"FORKFIRST_STATE_DIR": "/proc/nowhere"}
    done = home.run(*CONTAINER, *home.words("run", home.program("app.py", "def main(): pass\n")))
    assert (done.status, done.out) == (78, "")
    said = 'forkfirst: cannot start "app": cannot make directory /proc/nowhere/run with mode 0700'
    assert done.err.startswith(said)
    assert done.err.endswith("\n  let FORKFIRST_STATE_DIR name a directory of this user's\n")


class Container:
    """A service that runs as process 1 of a pid namespace of its own."""

    def __init__(self, home: Home, *flags: object) -> None:
        self._home = home
        program = write(home, "first")
        words = home.words("run", f"{program}:main", "--listen", "web=127.0.0.1:0", *flags)
        self.process = home.open(
            *CONTAINER, *words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.first = self._find_first()

    def run(self, *words: object) -> Any:
        """Run `forkfirst` in there, as `podman exec` does."""
        enter = ("nsenter", "--target", self.first, "--pid", "--mount")
        return self._home.run(*enter, *self._home.words(*words))

    def wait_until(self, holds: Any) -> dict[str, Any]:
        """Ask for the status until it *holds*."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline
            done = self.run("status", "app", "--json")
            found: dict[str, Any] = json.loads(done.out) if done.out else {}
            if done.status == 0 and holds(found):
                return found

    def finish(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it wrote."""
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err.decode()

    def _find_first(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline
            for pid in self._home.list_processes():
                inside = _read_field(pid, "NSpid").split()[1:]
                if inside == ["1"] and "forkfirst" in self._home.list_processes().get(pid, ""):
                    return pid


def _read_field(pid: int, name: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), "")


def _get_address(found: dict[str, Any]) -> tuple[str, int]:
    host, _, port = dict(found["listeners"])["web"].rpartition(":")
    return host, int(port)


def test_process_1_with_workers_reloads_at_sighup(home: Home) -> None:
    """`podman kill --signal HUP`: process 1 hands it on to the supervisor, and nobody leaves."""
    container = Container(home, "--workers", 2)
    found = container.wait_until(lambda found: found["state"] == "ready")
    address = _get_address(found)
    with Load(address) as load:
        for number, word in enumerate(("other", "third"), 2):
            write(home, word)
            if number % 2:
                assert container.run("reload", "app").status == 0
            else:
                os.kill(container.first, signal.SIGHUP)
            container.wait_until(
                lambda found, number=number: (
                    {one["generation"] for one in found["workers"]} == {number}
                )
            )
            load.wait_for_more(50)
    assert load.failures == []
    assert load.words == [b"first\n", b"other\n", b"third\n"]
    os.kill(container.first, signal.SIGTERM)
    status, said = container.finish()
    assert status == 0, said
    assert home.list_processes() == {}


def test_process_1_without_workers_says_that_it_cannot(home: Home) -> None:
    """Its one child would be another, and with the end of the old one the container would end."""
    container = Container(home)
    found = container.wait_until(lambda found: found["state"] == "ready")
    done = container.run("reload", "app")
    assert done.status == 64
    assert done.err == (
        'forkfirst: cannot reload "app": it is the one child of process 1, which ends with it\n'
        "  run it with --workers 1, whose supervisor keeps the pid\n"
    )
    assert ask(_get_address(found)) == b"first"
    os.kill(container.first, signal.SIGTERM)
    assert container.finish()[0] == 0


# -- another user ----------------------------------------------------------------------------------


def _read_who(home: Home) -> tuple[str, dict[str, Any]]:
    found = other_user.forkfirst_as(home, "status", "app", "--json")
    told = json.loads(found.out)
    host, _, port = dict(told["listeners"])["web"].rpartition(":")
    return told["status"], other_user.read_answer(talk((host, int(port))))


@pytest.mark.parametrize("workers", [(), ("--workers", 1)], ids=["alone", "supervised"])
@pytest.mark.parametrize("way", ["SIGHUP", "root", "its own user"])
def test_a_service_that_became_another_user_is_reloaded(
    home: Home, workers: tuple[object, ...], way: str
) -> None:
    """The record of its start is root's: who was dropped is told, and needs not find it."""
    other_user.open_home(home)
    program = home.directory / "app.py"

    def declare(word: str) -> None:
        text = other_user.SERVICE.replace("context.ready()", f"context.ready('{word}')")
        program.write_text(text)
        program.chmod(0o644)

    declare("first")
    address = other_user.own_address(87)
    flags = ("--user", other_user.NOBODY, "--listen", f"web={address}", *workers)
    started = other_user.forkfirst_as(home, "start", f"{program}:main", *flags)
    assert started.status == 0, started
    before, facts = _read_who(home)
    declare("another")
    if way == "SIGHUP":
        found = json.loads(other_user.forkfirst_as(home, "status", "app", "--json").out)
        os.kill(found["pid"], signal.SIGHUP)
    else:
        uid = 0 if way == "root" else other_user.NOBODY
        done = other_user.forkfirst_as(home, "reload", "app", uid=uid)
        if uid:  # who was not told how it was started cannot start it again
            assert done.status == 64
            assert "nothing is known of how it was started" in done.err
            return
        assert done.status == 0, done
    deadline = time.monotonic() + PATIENCE
    while (after := _read_who(home))[0] != "another":
        assert time.monotonic() < deadline, after
    assert before == "first"
    assert after[1] == facts, "no more, and no less, than it had"
    assert after[1]["Uid"] == [str(other_user.NOBODY)] * 4
    assert other_user.forkfirst_as(home, "stop", "app").status == 0
