"""A program gets its descriptors where it wants them, and nothing else of this process."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from forkfirst.unix import children, spawn
from support.fresh import run_fresh

if TYPE_CHECKING:
    from pathlib import Path


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def _run(text: str, descriptors: dict[int, int], *, own_group: bool = False) -> tuple[int, bytes]:
    """Run a shell's *text* with *descriptors*, and return its pid and what it wrote to 1."""
    receive, send = os.pipe()
    with closing(os.fdopen(send, "wb")):
        words = ["/bin/sh", "-c", text]
        pid = spawn.spawn(words, {}, {**descriptors, 1: send}, own_group=own_group)
    said = _read_all(receive)
    assert children.waitpid(pid) == 0
    return pid, said


def test_descriptors_may_change_places(tmp_path: Path) -> None:
    """One's place may be another's number: each is lifted out of the way first."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("a", "b")]
    try:
        crossed = {fds[0]: fds[1], fds[1]: fds[0]}
        _, said = _run(f"cat /dev/fd/{fds[0]} /dev/fd/{fds[1]}", crossed)
    finally:
        for fd in fds:
            os.close(fd)
    assert said == b"ba"


LIFTING = """
import os
from forkfirst.unix import children, spawn
def look(): return sorted(map(int, os.listdir("/proc/self/fd")))
before = look()
ls = spawn.find_program("ls")
pid = spawn.spawn([ls, "-x", "/proc/self/fd"], {}, {7: 0, 9: 1})
assert children.waitpid(pid) == 0
tell(same=look() == before,
     passed_on=[fd for fd in before if os.path.exists(f"/proc/self/fd/{fd}")
                and os.get_inheritable(fd)])
"""


def test_no_descriptor_of_the_lifting_is_left() -> None:
    """Neither here nor there: there it is what is passed, and the folder that `ls` reads."""
    outcome = run_fresh(LIFTING)
    (told,) = outcome.told
    assert told["same"]
    there = {int(word) for word in outcome.out.split()}
    assert {7, 9} <= there
    assert len(there - {7, 9, *told["passed_on"]}) == 1


@pytest.mark.parametrize("own", [True, False])
def test_a_group_of_its_own_is_led_by_it(own: bool) -> None:  # noqa: FBT001 - one of two
    """So that what it leaves behind can be found and ended."""
    pid, said = _run("cut -d' ' -f5 /proc/$$/stat", {}, own_group=own)
    assert int(said) == (pid if own else os.getpgrp())


MASKS = """
import signal, os
from forkfirst.unix import children, spawn
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
for number in (signal.SIGHUP, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
pid = spawn.spawn(["/bin/sh", "-c", "exec grep -E 'Sig(Blk|Ign)' /proc/self/status"], {}, {},
                  still_ignored=[signal.SIGHUP])
assert children.waitpid(pid) == 0
tell(inherited=sorted(map(int, spawn.list_inherited_ignored())))
"""


def test_no_signal_is_blocked_and_only_what_is_wanted_ignored() -> None:
    """A program that inherits a blocked SIGTERM cannot be stopped."""
    outcome = run_fresh(MASKS)
    masks = {line.split(":")[0]: int(line.split()[1], 16) for line in outcome.out.splitlines()}
    thread_library = 3 << 31  # glibc's posix_spawn leaves these two ignored
    assert masks["SigBlk"] == 0
    assert masks["SigIgn"] & ~thread_library == 1 << (signal.SIGHUP - 1)
    assert outcome.told == [{"inherited": [signal.SIGHUP, signal.SIGUSR2]}]


def test_the_environment_is_the_one_that_is_given() -> None:
    """All of it, and nothing of ours."""
    receive, send = os.pipe()
    with closing(os.fdopen(send, "wb")):
        pid = spawn.spawn([spawn.find_program("env")], {"A": "b"}, {1: send})
    assert _read_all(receive) == b"A=b\n"
    children.waitpid(pid)


PLACES = """
import os
from forkfirst.unix import spawn
pipes = [os.pipe() for _ in range(3)]
ends = [pipes[2][1], pipes[0][1], pipes[1][1]]
inodes = [os.fstat(fd).st_ino for fd in ends]
spawn.place_descriptors(ends, 3)
tell(same=[os.fstat(fd).st_ino for fd in (3, 4, 5)] == inodes,
     inherited=[os.get_inheritable(fd) for fd in (3, 4, 5)],
     left=[fd for fd in ends if fd > 5 and os.path.exists(f"/proc/self/fd/{fd}")])
"""


def test_descriptors_are_placed_for_an_exec() -> None:
    """Each once, in order, whatever was there; a pipe's other end at 3 must go, not be mixed up."""
    (told,) = run_fresh(PLACES).told
    assert told == {"same": True, "inherited": [True, True, True], "left": []}


@pytest.mark.parametrize(
    ("text", "mode", "error"),
    [
        ("#!/nowhere/sh\n", 0o755, errors.TargetError),
        ("neither a script nor a program", 0o755, errors.TargetError),
        ("#!/bin/sh\n", 0o644, errors.PermissionRefusedError),
    ],
)
def test_what_cannot_be_executed_is_told_by_kind(
    tmp_path: Path, text: str, mode: int, error: type[errors.ForkfirstError]
) -> None:
    """Whoever starts it exits with the status that is documented for it."""
    program = tmp_path / "program"
    program.write_text(text)
    program.chmod(mode)
    with pytest.raises(error, match="cannot be executed"):
        spawn.spawn([str(program)], {}, {})


def test_a_program_is_found_as_a_shell_finds_it(tmp_path: Path) -> None:
    """A folder, and a file that may not be executed, are passed over."""
    with pytest.raises(errors.TargetError):
        spawn.find_program("forkfirst-no-such-program")
    with pytest.raises(errors.TargetError):
        spawn.find_program(str(tmp_path))
    assert spawn.find_program(sys.executable) == sys.executable
