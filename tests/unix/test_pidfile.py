"""The pid file that is the lock: each state it can be found in has one decided, safe outcome."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from forkfirst.unix import children, descriptors, file_lock, held_pidfile, pidfile
from support.fresh import run_fresh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Give a path in a directory of our own, and see that nothing was left open or beside it."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o755)
    before = descriptors.list_open()
    yield directory / "web.pid"
    assert descriptors.list_open() == before
    assert [file.name for file in directory.iterdir() if file.name != "web.pid"] == []


def take(path: Path, pid: int | None = None) -> held_pidfile.PidFile:
    return pidfile.acquire(str(path), os.getpid() if pid is None else pid)


def read_inode(path: Path) -> int:
    return path.stat().st_ino


# -- what is found, and what becomes of it --------------------------------------------------------


def test_where_there_was_none_there_is_one(path: Path) -> None:
    """The pid and a newline, readable by all, writable by us, and locked."""
    umask = os.umask(0o077)
    try:
        held = take(path)
    finally:
        os.umask(umask)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    assert held.path == str(path)
    assert not os.get_inheritable(held.fd)
    assert pidfile.look_up_holder(str(path)) == pidfile.Holder(pid=os.getpid())
    assert pidfile.read_stale_pid(str(path)) is None
    assert held.release()
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "stale_pid"),
    [
        ("4194304\n", 4194304),  # above every pid there can be: dead
        (f"{os.getpid()}\n", os.getpid()),  # alive, and somebody else by now
        ("1\n", 1),  # alive, and another user's
        ("", 0),
        ("\n", 0),
        ("-1\n", 0),
        ("0\n", 0),
        ("rubbish\n", 0),
        ("12 34\n", 0),
        ("\0\0\0\0", 0),
        ("9" * 4000, 0),
    ],
    ids=[
        *("dead", "reused", "of another user", "empty", "line", "negative"),
        *("zero", "rubbish", "two", "zeros", "long"),
    ],
)
def test_a_file_that_nobody_holds_is_stale_whatever_it_says(
    path: Path, content: str, stale_pid: int
) -> None:
    """The lock says who runs; a number that was left behind may be anybody by now."""
    path.write_text(content)
    path.chmod(0o644)
    old = read_inode(path)
    assert pidfile.look_up_holder(str(path)) is None
    assert pidfile.take_pidfd(str(path)) is None
    assert pidfile.read_stale_pid(str(path)) == stale_pid
    held = take(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert read_inode(path) != old  # replaced, never overwritten
    assert held.release()


def test_a_running_service_is_named(path: Path) -> None:
    """Whoever asks: also the process that holds it, which must not start twice either."""
    held = take(path, pid=4711)
    with pytest.raises(errors.AlreadyRunningError, match=r"^already running \(pid 4711\)$") as told:
        take(path)
    assert told.value.pid == 4711
    assert told.value.exit_status == 75
    assert path.read_text() == "4711\n"
    held.release()


def test_a_link_is_refused_and_not_followed(path: Path, tmp_path: Path) -> None:
    """Root would write its pid over, or lock, any file that the link names."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path.symlink_to(precious)
    for attempt in (take, look_up, read_stale, take_fd):
        with pytest.raises(errors.UnsafePathError, match="is a symbolic link"):
            attempt(path)
    assert precious.read_text() == "precious"
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    with pytest.raises(errors.UnsafePathError, match="is a symbolic link"):
        take(path)
    assert not (tmp_path / "nothing").exists()


def look_up(path: Path) -> object:
    return pidfile.look_up_holder(str(path))


def read_stale(path: Path) -> object:
    return pidfile.read_stale_pid(str(path))


def take_fd(path: Path) -> object:
    return pidfile.take_pidfd(str(path))


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket"])
def test_what_is_no_file_is_refused_without_waiting(path: Path, kind: str) -> None:
    """To open a fifo for reading would wait for its writer, for ever."""
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    for attempt in (take, look_up, read_stale, take_fd):
        with pytest.raises(errors.UnsafePathError, match="is not a regular file"):
            attempt(path)
    assert path.exists()


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    """Whoever may write it says whom we signal; and uwsgi's was world-writable for years."""
    path.write_text("1\n")
    path.chmod(mode)
    for attempt in (take, look_up, read_stale, take_fd):
        with pytest.raises(errors.UnsafePathError, match="others than its owner may write it"):
            attempt(path)
    assert path.read_text() == "1\n"


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_that_the_world_may_write_is_refused(path: Path, mode: int) -> None:
    """In /tmp anybody can be there first, sticky bit or not."""
    path.parent.chmod(mode)
    for attempt in (take, look_up, read_stale, take_fd):
        with pytest.raises(errors.UnsafePathError, match="its directory is world-writable"):
            attempt(path)
    assert not path.exists()


@pytest.mark.real
def test_what_belongs_to_another_user_is_refused(path: Path) -> None:
    """A file of somebody else's could name any process; in his directory he can replace ours."""
    path.write_text("1\n")
    path.chmod(0o644)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(errors.UnsafePathError, match=f"it belongs to uid {NOBODY}"):
        take(path)
    with pytest.raises(errors.UnsafePathError, match=f"it belongs to uid {NOBODY}"):
        look_up(path)
    path.unlink()
    os.chown(path.parent, NOBODY, NOBODY)
    with pytest.raises(errors.UnsafePathError, match=f"directory belongs to uid {NOBODY}"):
        take(path)


@pytest.mark.real
def test_another_user_sees_a_service_of_root_and_cannot_take_its_place(path: Path) -> None:
    """`status` is for everybody; the file system says no to the rest."""
    for parent in path.parents[:-1]:
        if parent.owner() == "root" and not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)
    held = take(path, pid=4711)
    outcome = run_fresh(
        """
from forkfirst import errors
from forkfirst.unix import held_pidfile, held_pidfile, pidfile
os.setuid(65534)
tell(pid=pidfile.look_up_holder(sys.argv[1]).pid)
for path in sys.argv[1:]:
    try:
        pidfile.acquire(path, 1)
    except errors.ForkfirstError as error:
        tell(kind=type(error).__name__)
""",
        path,
        path.with_name("other.pid"),
    )
    held.release()
    assert outcome.told == [
        {"pid": 4711},
        {"kind": "CannotCreateError"},
        {"kind": "CannotCreateError"},
    ], outcome.err


def test_where_nothing_can_be_created_the_path_and_the_reason_are_told(tmp_path: Path) -> None:
    """Not "permission denied", of nobody knows what."""
    path = tmp_path / "missing" / "web.pid"
    text = f"cannot create the pid file {path}: no such file or directory"
    with pytest.raises(errors.CannotCreateError) as told:
        take(path)
    assert str(told.value) == text
    assert isinstance(told.value.__cause__, FileNotFoundError)
    for attempt in (look_up, read_stale, take_fd):
        assert attempt(path) is None


@pytest.mark.parametrize("content", [None, "4194304\n"])
def test_a_full_disk_changes_nothing(path: Path, content: str | None) -> None:
    """A size limit of 0 is a full disk that every user can have; Python ignores SIGXFSZ."""
    if content is not None:
        path.write_text(content)
        path.chmod(0o644)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(errors.DiskFullError) as told:
            take(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(told.value.__cause__, OSError)
    assert told.value.__cause__.errno == errno.EFBIG
    assert (path.read_text() if path.exists() else None) == content


@pytest.mark.real
def test_a_file_system_without_space_changes_nothing(path: Path) -> None:
    """ENOSPC itself, where one can be made: a tmpfs of one page that is used up."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,mode=755", "none", path.parent], check=True
    )
    try:
        (path.parent / "web.pid").write_text("4194304\n" + "x" * 4000)
        path.chmod(0o644)
        with pytest.raises(errors.DiskFullError, match="no space left on device"):
            take(path)
        assert path.read_text().startswith("4194304\n")
    finally:
        subprocess.run(["umount", path.parent], check=True)


def test_a_lock_of_a_stranger_is_not_a_service(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may read a stale file can flock it: the start is refused, but nobody is said to run."""
    monkeypatch.setattr(pidfile, "_ATTEMPTS", 3)
    path.write_text("4194304\n")
    path.chmod(0o644)
    with path.open() as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        assert pidfile.look_up_holder(str(path)) is None
        with pytest.raises(errors.CannotCreateError, match="held, but not by a service"):
            take(path)
    assert path.read_text() == "4194304\n"


def test_a_file_system_without_nameless_files_will_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a process of the same pid died there before; what it left is used by nobody."""
    monkeypatch.setattr(pidfile, "_open_nameless", pidfile.open_temporary)
    (path.parent / f".web.pid.{os.getpid()}").write_text("left")
    held = take(path)
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(errors.AlreadyRunningError):
        take(path)
    assert list(path.parent.iterdir()) == [path]
    held.close()
    held = take(path)
    held.release()


def test_a_kernel_without_marks_will_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS and the BSDs have the flock alone."""
    monkeypatch.setattr(file_lock, "_SET_MARK", None)
    monkeypatch.setattr(file_lock, "_GET_MARK", None)
    held = take(path)
    assert pidfile.look_up_holder(str(path)) == pidfile.Holder(pid=os.getpid())
    with pytest.raises(errors.AlreadyRunningError):
        take(path)
    held.close()
    assert pidfile.look_up_holder(str(path)) is None
    take(path).release()


# -- holding it -----------------------------------------------------------------------------------


def test_who_reads_while_it_is_rewritten_reads_a_whole_pid(path: Path) -> None:
    """The launcher's pid gives way to the service's, with more digits or with fewer."""
    held = take(path, pid=1234567)
    before = read_inode(path)
    for pid in (7, 1234567, 89, 4194303):
        held.rewrite(pid)
        assert path.read_text() == f"{pid}\n"
    assert read_inode(path) == before
    held.release()


def test_a_rewrite_on_a_full_disk_is_an_error_of_ours(path: Path) -> None:
    """It is told with the path, and the old pid stays readable."""
    held = take(path, pid=4711)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(errors.DiskFullError, match=r"cannot write the pid file .*web\.pid: "):
            held.rewrite(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "4711\n"
    held.release()


def test_releasing_removes_only_what_is_ours(path: Path) -> None:
    """Somebody removed it by hand and started another: that one's file must stay."""
    held = take(path, pid=1)
    path.unlink()
    other = take(path, pid=2)
    assert not held.release()
    assert path.read_text() == "2\n"
    assert other.release()
    assert not other.release()


def test_a_copy_given_up_leaves_the_lock_with_the_others(path: Path) -> None:
    """The launcher closes its copy when the service has it."""
    held = take(path)
    copy = held_pidfile.PidFile(os.dup(held.fd), held.path)
    held.close()
    held.close()
    assert pidfile.look_up_holder(str(path)) is not None
    copy.close()
    assert pidfile.look_up_holder(str(path)) is None
    assert pidfile.read_stale_pid(str(path)) == os.getpid()


def test_the_lock_lives_as_long_as_any_process_of_the_service(path: Path) -> None:
    """Through both forks, the launcher's end, and a worker that outlives the rest by SIGKILL."""
    outcome = run_fresh(
        """
import signal
from forkfirst.unix import children, held_pidfile, pidfile, session
path = sys.argv[1]
held = pidfile.acquire(path, os.getpid())
wait, go = os.pipe()
pid = session.fork()
if pid == 0:
    os.close(go)
    os.read(wait, 1)
    session.leave(0)
held.rewrite(pid)
held.close()
def ask():
    other = session.fork()
    if other == 0:
        found = pidfile.look_up_holder(path)
        tell(holder=found and found.pid == pid)
        session.leave(0)
    os.waitpid(other, 0)
ask()
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
ask()
tell(stale=pidfile.read_stale_pid(path) == pid)
""",
        path,
    )
    assert outcome.told == [{"holder": True}, {"holder": None}, {"stale": True}], outcome.err


@pytest.mark.parametrize("kind", ["ours", "record"])
def test_the_lock_outlives_the_launcher_as_a_record_lock_does_not(path: Path, kind: str) -> None:
    """What lockf(3) gives belongs to one process: the launcher takes it along when it leaves."""
    outcome = run_fresh(
        """
import fcntl, select
from forkfirst.unix import file_lock, session
path, kind = sys.argv[1:]
fd = os.open(path, os.O_CREAT | os.O_RDWR)
def try_record(fd):
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
try_lock = {"ours": file_lock.try_lock, "record": try_record}[kind]
tell(taken=try_lock(fd))
launcher = os.pidfd_open(os.getpid())
if session.fork():
    session.leave(0)
select.select([launcher], [], [])
tell(again=try_lock(os.open(path, os.O_RDWR)))
""",
        path,
        kind,
    )
    assert outcome.told == [{"taken": True}, {"again": kind == "record"}], outcome.err


# -- signalling who holds it ----------------------------------------------------------------------


def test_a_pidfd_is_of_the_process_that_the_file_names(path: Path) -> None:
    """Signals go through it, so what was found is what is signalled."""
    held = take(path)
    taken = pidfile.take_pidfd(str(path))
    assert taken is not None
    pid, pidfd = taken
    assert pid == os.getpid()
    assert pidfd is not None
    children.send_signal(pid, pidfd, 0)
    os.close(pidfd)
    held.release()


@pytest.mark.parametrize("state", ["dead", "stranger"])
def test_a_pid_used_again_while_others_hold_the_lock_is_not_signalled(
    path: Path, state: str
) -> None:
    """The main process is gone, a worker of it lives, and the pid in the file is anybody's."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as other:
        if state == "dead":
            other.kill()
            other.wait()
        held = take(path, pid=other.pid)
        assert pidfile.look_up_holder(str(path)) == pidfile.Holder(pid=other.pid)
        assert pidfile.take_pidfd(str(path)) is None
        held.release()
        other.kill()


# -- many at once ---------------------------------------------------------------------------------

RACE = """
import select
from forkfirst import errors
from forkfirst.unix import pidfile, session
#change
path, starters, readers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
barrier, lift = os.pipe()  # its end of file starts everybody
lost, losing = os.pipe()  # its end of file ends the winner
done, finishing = os.pipe()  # its end of file ends the readers
pids = []
for number in range(starters + readers):
    pid = session.fork()
    if pid == 0:
        break
    pids.append(pid)
else:
    for fd in (lift, losing, finishing):
        os.close(fd)
    for pid in pids:
        os.waitpid(pid, 0)
    sys.exit()
os.close(lift)
if number < starters:
    os.read(barrier, 1)
    try:
        held = pidfile.acquire(path, os.getpid())
        tell(won=os.getpid())
        os.close(losing)
        os.read(lost, 1)
        held.release()
    except errors.ForkfirstError as error:
        tell(lost=getattr(error, "pid", 0), error=str(error))
else:
    os.close(losing)
    os.close(finishing)
    os.read(barrier, 1)
    seen = set()
    while not select.select([done], [], [], 0)[0]:
        found = pidfile.look_up_holder(path)
        if found:
            seen.add(found.pid)
        taken = pidfile.take_pidfd(path)
        if taken:
            os.close(taken[1])
    tell(seen=sorted(seen))
os._exit(0)
"""
by_state = pytest.mark.parametrize(
    "content",
    [None, "4194304\n", f"{os.getpid()}\n", ""],
    ids=["absent", "dead", "reused", "empty"],
)


@by_state
def test_starters_race_on_a_file_system_without_nameless_files_too(
    path: Path, content: str | None
) -> None:
    """Each attempt has its own temporary file, and the losers leave none."""
    check_race(path, content, 24, 0, "pidfile._open_nameless = pidfile.open_temporary")


def check_race(
    path: Path, content: str | None, starters: int, readers: int, change: str = ""
) -> None:
    if content is not None:
        path.write_text(content)
        path.chmod(0o644)
    outcome = run_fresh(RACE.replace("#change", change), path, starters, readers)
    won = [facts["won"] for facts in outcome.told if "won" in facts]
    lost = [facts for facts in outcome.told if "lost" in facts]
    assert len(won) == 1, outcome
    assert len(lost) == starters - 1, outcome
    assert {facts["lost"] for facts in lost} == {*won}, lost
    for facts in outcome.told:
        assert set(facts.get("seen", won)) <= {*won}, facts
    assert outcome.err == ""
    assert not path.exists()


@by_state
def test_of_24_starters_one_wins_and_the_others_name_it(path: Path, content: str | None) -> None:
    """Never two, never none, and nobody says the pid of the dead."""
    for _ in range(3):
        check_race(path, content, 24, 0)


@by_state
def test_those_who_only_look_never_make_a_start_fail(path: Path, content: str | None) -> None:
    """A `status` in a loop, or a monitoring system, must not be taken for a running service."""
    for _ in range(3):
        check_race(path, content, 8, 8)


def test_who_looks_takes_no_lock(path: Path) -> None:
    """Not even a shared one for an instant: a starter would have to guess what it means."""
    outcome = run_fresh(
        """
from forkfirst.unix import file_lock, held_pidfile, pidfile
path = sys.argv[1]
held = pidfile.acquire(path, os.getpid())
locked = []
def count(frame, event, function):
    if event == "c_call" and function is file_lock.fcntl.flock:
        locked.append(frame.f_code.co_name)
sys.setprofile(count)
tell(holder=bool(pidfile.look_up_holder(path)), stale=pidfile.read_stale_pid(path),
     signalled=bool(pidfile.take_pidfd(path)))
held.close()
tell(holder=bool(pidfile.look_up_holder(path)), stale=bool(pidfile.read_stale_pid(path)))
sys.setprofile(None)
tell(locked=locked)
""",
        path,
    )
    assert outcome.told == [
        {"holder": True, "stale": None, "signalled": True},
        {"holder": False, "stale": True},
        {"locked": []},
    ], outcome.err


@pytest.mark.slow
@by_state
def test_of_200_starters_one_wins_every_time(path: Path, content: str | None) -> None:
    """As often as it takes to meet the rare orders."""
    for _ in range(25):
        check_race(path, content, 200, 4)


def test_a_name_that_changed_hands_while_it_was_looked_at_is_not_taken(path: Path) -> None:
    """Between the open and the lock another one may have won: its file must not be removed."""
    outcome = run_fresh(
        """
from forkfirst import errors
from forkfirst.unix import file_lock, held_pidfile, pidfile
path = sys.argv[1]
winner = pidfile.acquire(path + ".winner", 4711)
open(path, "w").close()
os.chmod(path, 0o644)
def win(frame, event, function):
    if event == "c_call" and function is file_lock.fcntl.flock:
        sys.setprofile(None)
        os.rename(path + ".winner", path)
sys.setprofile(win)
try:
    pidfile.acquire(path, 1)
except errors.AlreadyRunningError as error:
    tell(pid=error.pid, text=open(path).read())
""",
        path,
    )
    assert outcome.told == [{"pid": 4711, "text": "4711\n"}], outcome.err


def test_two_never_hold_it_at_once(path: Path, tmp_path: Path) -> None:
    """Through releases and deaths: a service that ends may be replaced, never doubled."""
    outcome = run_fresh(
        """
from forkfirst import errors
from forkfirst.unix import pidfile, session
path, inside = sys.argv[1:]
pids = []
for number in range(6):
    pid = session.fork()
    if pid == 0:
        break
    pids.append(pid)
else:
    for pid in pids:
        os.waitpid(pid, 0)
    sys.exit()
turns = attempts = 0
while turns < 20 and attempts < 1_000_000:
    attempts += 1
    try:
        held = pidfile.acquire(path, os.getpid())
    except errors.AlreadyRunningError:
        os.sched_yield()
        continue
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside
    turns += 1
    os.unlink(inside)
    held.close() if number % 2 else held.release()
tell(turns=turns)
session.leave(0)
""",
        path,
        tmp_path / "inside",
    )
    assert outcome.told == [{"turns": 20}] * 6, outcome.err


def test_a_starter_that_dies_holding_a_stale_file_blocks_nobody(path: Path) -> None:
    """The lock ends with it; nothing has to be cleaned up by hand."""
    path.write_text("4194304\n")
    path.chmod(0o644)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys\nfcntl.flock(f := open(sys.argv[1]), 2)\nprint(flush=True)\ninput()",
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    take(path).release()
