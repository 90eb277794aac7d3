"""Before a service becomes another user, it is known whether that user can read what it needs."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.unix import access
from support.child_program import NOBODY, run_child

if TYPE_CHECKING:
    from pathlib import Path

OTHER = 12345


def refusal(path: Path, uid: int = OTHER, gid: int = OTHER, groups: tuple[int, ...] = ()) -> str:
    try:
        access.check_readable(uid, gid, groups, [str(path)], name="web")
    except errors.PermissionRefusedError as refused:
        return f"{refused} ({refused.hint})"
    return ""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A directory whose every parent is open: pytest's own are not."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    (tmp_path / "home" / "venv").mkdir(parents=True)
    (tmp_path / "home" / "venv" / "app.py").touch(0o644)
    return tmp_path


def test_what_everybody_may_read_is_fine(room: Path) -> None:
    """The usual case says nothing."""
    assert refusal(room / "home" / "venv" / "app.py") == ""
    assert refusal(room / "home" / "venv") == ""


def test_the_directory_in_the_way_is_named_with_what_to_do(room: Path) -> None:
    """Not the file: its own mode is fine, and nobody would see why."""
    home, program = room / "home", room / "home" / "venv" / "app.py"
    home.chmod(0o700)
    said = refusal(program)
    assert said.startswith(f"cannot run as web: {home} is 0700 and belongs to ")
    assert f", on the way to {program} (" in said
    assert said.endswith(f"chmod o+x {home})")


def test_a_file_needs_reading_and_a_directory_of_modules_both(room: Path) -> None:
    """A directory that can be entered but not listed gives no modules."""
    venv, program = room / "home" / "venv", room / "home" / "venv" / "app.py"
    venv.chmod(0o711)
    assert refusal(program) == ""
    assert refusal(venv).endswith(f"chmod o+rx {venv})")
    program.chmod(0o640)
    assert refusal(program).endswith(f"chmod o+r {program})")


def test_the_first_class_that_fits_decides(room: Path) -> None:
    """As in the kernel: an owner is not helped by what others may do."""
    program = room / "home" / "venv" / "app.py"
    program.chmod(0o044)
    owner = program.stat()
    if owner.st_uid != 0:
        assert refusal(program, uid=owner.st_uid)
    program.chmod(0o604)
    assert refusal(program, gid=owner.st_gid)
    assert refusal(program, groups=(owner.st_gid,))
    program.chmod(0o640)
    assert refusal(program, groups=(owner.st_gid,)) == ""


def test_every_link_on_the_way_is_followed(room: Path) -> None:
    """A virtual environment's interpreter is a link to one that may be below a closed home."""
    target = room / "home" / "venv" / "app.py"
    (room / "opt").mkdir()
    link = room / "opt" / "app.py"
    link.symlink_to("../home/./venv/app.py")
    assert refusal(link) == ""
    (room / "home").chmod(0o700)
    assert f"{room / 'home'} is 0700" in refusal(link)
    link.unlink()
    link.symlink_to(target)
    assert f"{room / 'home'} is 0700" in refusal(link)


def test_links_in_a_circle_end(room: Path) -> None:
    """The loader will say what is wrong with them; this check must come to an end."""
    (room / "a").symlink_to("b")
    (room / "b").symlink_to("a")
    assert refusal(room / "a") == ""


def test_root_reads_everything(room: Path) -> None:
    """A service that only changes its group stays root."""
    (room / "home").chmod(0)
    access.check_readable(0, 0, (), [str(room / "home")])
    (room / "home").chmod(0o700)


def test_an_interpreter_needs_its_program_its_library_and_its_modules() -> None:
    """All that a fresh start under another user opens."""
    files = access.find_interpreter_files()
    assert sys.executable in files
    assert sys.base_prefix in files
    assert os.path.dirname(os.__file__) in files  # noqa: PTH120
    if sys.platform == "linux":
        assert any("lib" in os.path.basename(path) for path in files)  # noqa: PTH119
    assert all(os.path.lexists(path) for path in files)


ASK = """
import json, os, sys
paths = sys.argv[2:]
os.setgroups([int(sys.argv[1])])
os.setresgid(*[int(sys.argv[1])] * 3)
os.setresuid(*[int(sys.argv[1])] * 3)
def reads(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    return True
print(json.dumps([reads(path) for path in paths]))
sys.stdout.flush()
os._exit(0)  # the interpreter may be unreadable by now
"""


@pytest.mark.real
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    modes=st.lists(st.integers(0, 0o777), min_size=3, max_size=3),
    owners=st.lists(
        st.tuples(st.sampled_from([0, NOBODY]), st.sampled_from([0, NOBODY])),
        min_size=3,
        max_size=3,
    ),
)
def test_the_verdict_is_the_kernel_s(
    room: Path, modes: list[int], owners: list[tuple[int, int]]
) -> None:
    """Whatever the modes and owners: the prediction against an open(2) by that user."""
    program = room / "home" / "venv" / "app.py"
    for path, mode, (uid, gid) in zip(
        (program, program.parent, program.parent.parent), modes, owners, strict=True
    ):
        os.chown(path, uid, gid)
        path.chmod(mode)
    predicted = refusal(program, uid=NOBODY, gid=NOBODY, groups=(NOBODY,)) == ""
    assert run_child(ASK, str(NOBODY), str(program)) == [predicted]


@pytest.mark.real
def test_an_access_control_list_is_not_judged(room: Path) -> None:
    """It may allow what the mode forbids, and a refusal must be certain."""
    home = room / "home"
    home.chmod(0o700)
    assert refusal(home / "venv")
    # version 2 of <linux/posix_acl_xattr.h>; owner rwx, OTHER r-x, group ---, mask r-x, other ---
    entries = [(1, 7, 2**32 - 1), (2, 5, OTHER), (4, 0, 2**32 - 1), (16, 5, 2**32 - 1)]
    entries.append((32, 0, 2**32 - 1))
    raw = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, bits, who in entries
    )
    try:
        os.setxattr(home, "system.posix_acl_access", raw)
    except OSError:
        pytest.skip("this file system has no access control lists")
    assert refusal(home / "venv") == ""


@pytest.mark.real
def test_an_interpreter_below_a_closed_home_is_noticed(room: Path) -> None:
    """The trouble itself: a copy of a link to this interpreter, in a home of 0700."""
    venv = room / "home" / "venv" / "bin"
    venv.mkdir()
    (venv / "python").symlink_to(sys.executable)
    (room / "home").chmod(0o700)
    program = (
        "import json, os, sys\n"
        "from forkfirst import errors\n"
        "from forkfirst.unix import access\n"
        "try:\n"
        f"    access.check_readable({NOBODY}, {NOBODY}, (), [sys.argv[1]])\n"
        "except errors.PermissionRefusedError as refused:\n"
        "    print(json.dumps(str(refused)))\n"
    )
    said = run_child(program, str(venv / "python"))
    assert said.startswith(f"cannot run as nobody: {room / 'home'} is 0700 and belongs to root")
