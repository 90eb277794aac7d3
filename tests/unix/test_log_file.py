"""The log: opened where it is safe, rotated without losing a line, never the program's trouble."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from forkfirst.unix import descriptors, log_file
from support.fresh import run_fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
INSTALL = """
from forkfirst import errors
from forkfirst.unix import log_file, stdio
def install(path, **options):
    fd, _ = log_file.open_log(path)
    stdio.redirect(0, fd, fd)
    os.close(fd)
    log = log_file.Log(path=path, **options)
    log.install()
    return log
"""


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    before = descriptors.list_open()
    yield
    assert descriptors.list_open() == before


def open_and_close(path: Path) -> bool:
    fd, created = log_file.open_log(str(path))
    os.close(fd)
    return created


def list_names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def read_all(path: Path, keep: int = 1000) -> str:
    """Return the whole log, the oldest file first."""
    files = [path.with_name(f"{path.name}.{number}") for number in range(keep, 0, -1)]
    return "".join(file.read_text() for file in [*files, path] if file.exists())


# -- opening --------------------------------------------------------------------------------------


def test_a_new_log_is_for_its_owner_and_group(tmp_path: Path) -> None:
    """0640 whatever the umask is: a log has what nobody thought of as secret."""
    path = tmp_path / "web.log"
    umask = os.umask(0o077)
    try:
        fd, created = log_file.open_log(str(path))
    finally:
        os.umask(umask)
    assert created
    assert path.stat().st_mode & 0o7777 == 0o640
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_an_old_log_is_appended_to_as_it_is(tmp_path: Path) -> None:
    """Its owner chose its mode; and who undoes a failed start must know that it was there."""
    path = tmp_path / "web.log"
    path.write_text("before\n")
    path.chmod(0o604)
    fd, created = log_file.open_log(str(path))
    os.write(fd, b"after\n")
    os.close(fd)
    assert not created
    assert path.read_text() == "before\nafter\n"
    assert path.stat().st_mode & 0o7777 == 0o604


def test_in_a_directory_of_ones_own_a_link_is_followed(tmp_path: Path) -> None:
    """/dev/stderr is one, and so is a log on another disk."""
    (tmp_path / "web.log").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    assert not open_and_close(tmp_path / "web.log")
    assert not open_and_close(Path("/dev/null"))


@pytest.mark.parametrize("target", ["there", "missing"])
def test_where_others_can_write_a_link_is_refused(tmp_path: Path, target: str) -> None:
    """It would make root's service write its log over any file."""
    (tmp_path / "there").write_text("precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "web.log").symlink_to(tmp_path / target)
    with pytest.raises(errors.UnsafePathError):
        open_and_close(shared / "web.log")
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_where_others_can_write_only_a_plain_file_is_accepted(tmp_path: Path) -> None:
    """A second name is a file that its maker can still read; a fifo is one that he reads."""
    tmp_path.chmod(0o1777)
    path = tmp_path / "web.log"
    assert open_and_close(path)
    assert not open_and_close(path)
    (tmp_path / "second").hardlink_to(path)
    with pytest.raises(errors.UnsafePathError, match="others may have put it there"):
        open_and_close(path)
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(errors.UnsafePathError, match="others may have put it there"):
        open_and_close(path)
    os.close(reader)


@pytest.mark.real
def test_a_file_of_another_user_where_he_can_write_is_refused(tmp_path: Path) -> None:
    """He made it first, to read what the service will write."""
    tmp_path.chmod(0o1777)
    path = tmp_path / "web.log"
    path.touch()
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(errors.UnsafePathError):
        open_and_close(path)
    # In root's own directory it is the service's user who has it: that is how it should be.
    tmp_path.chmod(0o755)
    assert not open_and_close(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/web.log", "no such file"), ("", "is a directory"), ("dangling", "no such file")],
)
def test_what_cannot_be_opened_is_told_with_path_and_reason(
    tmp_path: Path, name: str, reason: str
) -> None:
    """The person reads it on the terminal, before anything was forked."""
    (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "file")
    path = tmp_path / name
    with pytest.raises(errors.CannotCreateError, match=re.escape(f"log {path}: {reason}")):
        open_and_close(path)


def test_a_fifo_that_nobody_reads_and_a_socket_are_refused_at_once(tmp_path: Path) -> None:
    """A plain open would wait for a reader, for ever."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("fifo", "socket"):
        with pytest.raises(errors.CannotCreateError, match="no such device or address"):
            open_and_close(tmp_path / name)


# -- writing --------------------------------------------------------------------------------------


def test_a_line_is_one_write_and_is_in_the_log_at_once(tmp_path: Path) -> None:
    """Lines of several processes do not mix, and a death by SIGKILL loses none."""
    path = tmp_path / "web.log"
    outcome = run_fresh(
        INSTALL
        + """
log = install(sys.argv[1])
written = []
os_write = os.write
calls = []
def count(frame, event, function):
    if event == "c_call" and function is os_write:
        calls.append(1)
sys.setprofile(count)
print("one", "line", 7)
print("and", "another", file=sys.stderr)
sys.setprofile(None)
os.write(1, b"of C\\n")
sys.stdout.buffer.write(b"bytes\\n")
print("caf\\xe9 \\udcff")
tell(writes=len(calls), names=[sys.stdout.name, sys.stderr.name], fds=[sys.stdout.fileno(),
     sys.stderr.fileno()], tty=sys.stdout.isatty(), same=sys.__stdout__ is sys.stdout)
os.kill(os.getpid(), 9)
""",
        path,
    )
    assert outcome.told == [
        {
            "writes": 2,
            "names": ["<stdout>", "<stderr>"],
            "fds": [1, 2],
            "tty": False,
            "same": True,
        }
    ], outcome.err
    assert path.read_text() == "one line 7\nand another\nof C\nbytes\ncafé \\udcff\n"


def test_a_full_disk_does_not_raise_and_is_counted() -> None:
    """A service must not die of its log; /dev/full says ENOSPC to every write."""
    program = (
        INSTALL
        + """
log = install("/dev/full", max_bytes=1)
print("x" * 99)
print("x" * 49, file=sys.stderr)
sys.stdout.flush()
sys.stdout.buffer.write(b"")
tell(dropped=log.dropped_bytes)
"""
    )
    assert run_fresh(program).told == [{"dropped": 150}]
    without = program.replace("    log.install()\n", "")
    ended = run_fresh(without)
    assert ended.told == []
    assert ended.status != 0


def test_what_fits_is_written_and_the_rest_counted(tmp_path: Path) -> None:
    """A limit in the middle of a line: the kernel takes a part, and then refuses."""
    path = tmp_path / "web.log"
    outcome = run_fresh(
        INSTALL
        + """
import resource
log = install(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
print("0123456789abcdef")
full = log.dropped_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print("again")
tell(dropped=[full, log.dropped_bytes])
""",
        path,
    )
    assert outcome.told == [{"dropped": [7, 7]}], outcome.err
    assert path.read_text() == "0123456789again\n"


def test_a_log_that_was_closed_does_not_raise(tmp_path: Path) -> None:
    """A program that tidies descriptors too eagerly loses its log, not its life."""
    outcome = run_fresh(
        INSTALL
        + """
log = install(sys.argv[1])
os.close(1)
print("lost")
tell(dropped=log.dropped_bytes)
""",
        tmp_path / "web.log",
    )
    assert outcome.told == [{"dropped": 5}], outcome.err


# -- rotating -------------------------------------------------------------------------------------


def test_a_rotation_moves_each_file_up_by_one(tmp_path: Path) -> None:
    """The newest old one is .1, and the oldest beyond *keep* is gone."""
    path = tmp_path / "web.log"
    outcome = run_fresh(
        INSTALL
        + """
from forkfirst.unix import descriptors
log = install(sys.argv[1], keep=2)
before = descriptors.list_open()
for number in range(4):
    print("part", number)
    log.rotate()
print("now")
os.write(2, b"and from C\\n")
tell(same=descriptors.list_open() == before, inherited=os.get_inheritable(1))
""",
        path,
    )
    assert outcome.told == [{"same": True, "inherited": True}], outcome.err
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert texts == {
        "web.log": "now\nand from C\n",
        "web.log.1": "part 3\n",
        "web.log.2": "part 2\n",
    }
    assert {file.stat().st_mode & 0o7777 for file in tmp_path.iterdir()} == {0o640}


def test_with_nothing_to_keep_there_is_one_file(tmp_path: Path) -> None:
    """What was in it is gone: that is what was asked for."""
    path = tmp_path / "web.log"
    run_fresh(
        INSTALL + "log = install(sys.argv[1], keep=0); print(1); log.rotate(); print(2)", path
    )
    assert [file.name for file in tmp_path.iterdir()] == ["web.log"]
    assert path.read_text() == "2\n"


def test_a_log_that_grew_too_large_rotates_by_itself(tmp_path: Path) -> None:
    """By the size of the file, so that what C code wrote counts too."""
    path = tmp_path / "web.log"
    outcome = run_fresh(
        INSTALL
        + """
log = install(sys.argv[1], max_bytes=1000, keep=1000)
for number in range(500):
    os.write(1, b"%04d from C\\n" % number)
    print(f"{number:04} from Python")
""",
        path,
    )
    assert outcome.err == ""
    sizes = [file.stat().st_size for file in tmp_path.iterdir() if file != path]
    assert all(1000 < size < 1100 for size in sizes)
    assert read_all(path) == "".join(f"{n:04} from C\n{n:04} from Python\n" for n in range(500))


@pytest.mark.parametrize("max_bytes", [0, 2000])
def test_no_line_of_any_thread_is_lost_while_others_rotate(tmp_path: Path, max_bytes: int) -> None:
    """On request and by size at once: each line is in exactly one of the files, whole."""
    path = tmp_path / "web.log"
    outcome = run_fresh(
        INSTALL
        + """
import threading
log = install(sys.argv[1], max_bytes=int(sys.argv[2]), keep=1000)
sys.setswitchinterval(1e-5)
def write(number):
    for line in range(1000):
        sys.stdout.write(f"{number} {line}\\n")
def rotate():
    for _ in range(30):
        log.rotate()
threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
threads += [threading.Thread(target=rotate) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
tell(dropped=log.dropped_bytes)
""",
        path,
        max_bytes,
    )
    assert outcome.told == [{"dropped": 0}], outcome.err
    assert (tmp_path / "web.log.60").exists()
    wanted = {f"{number} {line}" for number in range(4) for line in range(1000)}
    lines = read_all(path).splitlines()
    assert len(lines) == len(wanted)
    assert {*lines} == wanted


def test_processes_that_share_a_log_rotate_it_once(tmp_path: Path) -> None:
    """The second one sees that the path is another file by now, and only goes over to it."""
    path = tmp_path / "web.log"
    outcome = run_fresh(
        INSTALL
        + """
from forkfirst.unix import session
log = install(sys.argv[1], keep=5)
print("old")
wait, go = os.pipe()
pid = session.fork()
if pid == 0:
    os.read(wait, 1)
    log.rotate()
    print("of the worker")
    session.leave(0)
log.rotate()
os.write(go, b"x")
os.waitpid(pid, 0)
print("of the service")
""",
        path,
    )
    assert outcome.err == ""
    assert list_names(tmp_path) == ["web.log", "web.log.1"]
    assert path.read_text() == "of the worker\nof the service\n"


def test_a_log_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    """As logrotate does it: rename, then ask the service."""
    path = tmp_path / "web.log"
    run_fresh(
        INSTALL
        + """
log = install(sys.argv[1])
print("old")
os.rename(sys.argv[1], sys.argv[1] + ".moved")
print("still old")
log.rotate()
print("new")
""",
        path,
    )
    assert (tmp_path / "web.log.moved").read_text() == "old\nstill old\n"
    assert path.read_text() == "new\n"
    assert list_names(tmp_path) == ["web.log", "web.log.moved"]


def test_where_no_new_file_can_be_made_the_old_one_stays_in_use(tmp_path: Path) -> None:
    """On request it is an error that is told; by size nobody hears of it."""
    path = tmp_path / "web.log"
    (tmp_path / "web.log.new").mkdir()  # in the way, also for root
    outcome = run_fresh(
        INSTALL
        + """
from forkfirst.unix import descriptors
log = install(sys.argv[1], max_bytes=10)
before = descriptors.list_open()
for _ in range(5):
    print("a line of the old one")
try:
    log.rotate()
except errors.CannotCreateError as error:
    tell(error=str(error), dropped=log.dropped_bytes, same=descriptors.list_open() == before)
print("the last")
""",
        path,
    )
    (facts,) = outcome.told
    assert facts["error"].startswith(f"cannot open the log {path}: ")
    assert facts["dropped"] == 0
    assert facts["same"]
    assert path.read_text() == "a line of the old one\n" * 5 + "the last\n"
    assert list_names(tmp_path) == ["web.log", "web.log.new"]


def test_a_signal_handler_may_log_and_rotate_while_its_thread_does(tmp_path: Path) -> None:
    """A lock that is not re-entrant would stop the service for ever, on a busy day."""
    path = tmp_path / "web.log"
    outcome = run_fresh(
        INSTALL
        + """
import signal
log = install(sys.argv[1], max_bytes=1000, keep=1000)
def handle(*_):
    sys.stdout.write("of the handler\\n")
    log.rotate()
signal.signal(signal.SIGUSR1, handle)
def interrupt(frame, event, function):
    if event == "c_call" and function in (os.rename, os.write, os.fstat, os.dup2):
        signal.raise_signal(signal.SIGUSR1)
        tell(inside=frame.f_code.co_name)
for number in range(10):
    sys.setprofile(interrupt)
    sys.stdout.write(f"line {number}\\n")
    log.rotate()
    sys.setprofile(None)
tell(dropped=log.dropped_bytes)
""",
        path,
    )
    *inside, dropped = outcome.told
    assert dropped == {"dropped": 0}, outcome.err
    assert {"_rotate", "_replace_output", "write"} <= {facts["inside"] for facts in inside}
    lines = read_all(path).splitlines()
    wanted = [f"line {number}" for number in range(10)] + ["of the handler"] * len(inside)
    assert sorted(lines) == sorted(wanted)


def test_a_fork_while_a_thread_rotates_leaves_no_lock_taken(tmp_path: Path) -> None:
    """A worker of a template would hang at its first rotation."""
    outcome = run_fresh(
        INSTALL
        + """
from forkfirst.unix import session
log = install(sys.argv[1])
log._lock.acquire()
log._rotating = True
pid = session.fork()
if pid == 0:
    log.rotate()
    tell(rotated=os.path.exists(sys.argv[1] + ".1"))
    session.leave(0)
os.waitpid(pid, 0)
""",
        tmp_path / "web.log",
    )
    assert outcome.told == [{"rotated": True}]


def test_what_is_no_file_is_not_rotated() -> None:
    """A terminal, a pipe to a collector, /dev/null: there is nothing to rename."""
    outcome = run_fresh(
        INSTALL
        + """
log = install("/dev/null", max_bytes=1)
print("x" * 100)
log.rotate()
tell(there=os.path.exists("/dev/null"), older=os.path.exists("/dev/null.1"))
"""
    )
    assert outcome.told == [{"there": True, "older": False}], outcome.err
