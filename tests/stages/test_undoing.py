"""How a start that fails is undone, and which error says why."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from forkfirst.plan import order, steps
from forkfirst.plan.host import Host
from forkfirst.plan.service import Declaration
from forkfirst.stages import start, taking

if TYPE_CHECKING:
    from pathlib import Path

PLAN = order.make_plan(
    Declaration(name="a", target="a:b"), Host(uid=1, pid=2, home="/home", directory="/")
)


def test_the_last_step_is_undone_first() -> None:
    """What was made on top of something goes before it."""
    done: list[int] = []
    under_way = start.Start(PLAN)
    for number in range(3):
        under_way.on_failure(lambda number=number: done.append(number))  # type: ignore[misc]
    under_way.undo()
    assert done == [2, 1, 0]
    under_way.undo()
    assert done == [2, 1, 0], "once"


def test_one_that_cannot_be_undone_does_not_stop_the_rest() -> None:
    """A directory that is gone, say."""
    done: list[str] = []

    def fail() -> None:
        raise FileNotFoundError

    under_way = start.Start(PLAN)
    under_way.on_failure(lambda: done.append("first"))
    under_way.on_failure(fail)
    under_way.undo()
    assert done == ["first"]


def test_only_the_very_file_is_removed(tmp_path: Path) -> None:
    """By its inode: a successor's has another, whatever its name."""
    path = tmp_path / "sock"
    path.write_text("ours")
    facts = path.stat()
    path.rename(tmp_path / "kept")  # so that the inode is not used again
    path.write_text("a successor's")
    start.unlink_if_same(str(path), facts.st_ino, facts.st_dev)
    assert path.read_text() == "a successor's"
    start.unlink_if_same(str(tmp_path / "kept"), facts.st_ino, facts.st_dev)
    assert not (tmp_path / "kept").exists()
    start.unlink_if_same(str(tmp_path / "kept"), facts.st_ino, facts.st_dev)


REFUSALS = [
    (errno.ENOSPC, errors.DiskFullError, 74),
    (errno.EDQUOT, errors.DiskFullError, 74),
    (errno.EFBIG, errors.DiskFullError, 74),
    (errno.EACCES, errors.PermissionRefusedError, 77),
    (errno.EPERM, errors.PermissionRefusedError, 77),
    (errno.EROFS, errors.CannotCreateError, 73),
    (errno.ENOTDIR, errors.CannotCreateError, 73),
    (errno.ENAMETOOLONG, errors.CannotCreateError, 73),
    (errno.ENOENT, errors.ConfigError, 78),
    (errno.EMFILE, errors.SystemRefusedError, 71),
    (errno.ENOMEM, errors.SystemRefusedError, 71),
    (errno.EIO, errors.SystemRefusedError, 71),
]


@pytest.mark.parametrize(("code", "kind", "status"), REFUSALS)
def test_each_refusal_of_the_kernel_has_its_own_status(
    code: int, kind: type[errors.ForkfirstError], status: int
) -> None:
    """And says what was attempted, on what, and why; the OSError is kept as the cause."""
    step = steps.ChangeDirectory(path="/srv")

    def refuse(_: object, __: object) -> None:
        raise OSError(code, os.strerror(code), "/srv")

    with pytest.raises(errors.ForkfirstError) as refused:
        taking.apply_steps([step], None, {steps.ChangeDirectory: refuse})
    assert type(refused.value) is kind
    assert refused.value.exit_status == status
    said = f"cannot change directory to /srv: {os.strerror(code).lower()}"
    assert str(refused.value) == said
    assert isinstance(refused.value.__cause__, OSError)


def test_a_file_that_the_step_does_not_name_is_named() -> None:
    """A step may fail at something that is not its subject."""
    error = OSError(errno.ENOENT, "No such file or directory", "/dev/null")
    refusal = taking.explain_refusal(steps.ChangeDirectory(path="/srv"), error)
    assert str(refusal).endswith("no such file or directory (/dev/null)")


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM])
def test_a_refused_fork_has_a_hint(code: int) -> None:
    """Nobody knows by heart what EAGAIN means of a fork."""
    refusal = taking.explain_refusal(steps.Fork(), OSError(code, os.strerror(code)))
    assert str(refusal) == f"cannot fork: {os.strerror(code).lower()}"
    assert "ulimit -u" in refusal.hint


def test_a_step_that_fails_ends_the_row() -> None:
    """What comes after it is not begun."""
    begun: list[str] = []

    def take(step: steps.ChangeDirectory, _: object) -> None:
        begun.append(step.path)
        if step.path == "/b":
            raise PermissionError(errno.EACCES, "Permission denied")

    row = [steps.ChangeDirectory(path=path) for path in ("/a", "/b", "/c")]
    with pytest.raises(errors.PermissionRefusedError):
        taking.apply_steps(row, None, {steps.ChangeDirectory: take})
    assert begun == ["/a", "/b"]
