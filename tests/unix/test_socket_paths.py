"""A unix path: a live one is never stolen, a file never deleted, a stale one taken over once."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forkfirst import errors
from forkfirst.unix import socket_paths, sockets
from support.child_program import NOBODY, run_child
from support.open_sockets import OpenSockets, make_stale, opened

__all__ = ["opened"]  # a fixture: pytest finds it here by its name

OPENERS = 6
ROUNDS = 15


# -- the faults of systemfd, by name ---------------------------------------------------------------


def test_fault_regular_file_deleted(tmp_path: Path) -> None:
    """The tool systemfd unlinks whatever is at the path: one wrong word and a database is gone."""
    precious = tmp_path / "precious.txt"
    precious.write_text("years of work")
    with pytest.raises(errors.CannotCreateError, match="a regular file is there, and was left"):
        sockets.open_unix(str(precious))
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("what", ["directory", "symbolic link", "dangling link", "FIFO"])
def test_nothing_but_a_socket_is_ever_replaced(tmp_path: Path, what: str) -> None:
    """A link would even let somebody else choose what is deleted."""
    path = tmp_path / "s"
    stale = tmp_path / "stale"
    make_stale(stale)
    if what == "directory":
        path.mkdir()
    elif what == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(stale if what == "symbolic link" else tmp_path / "nowhere")
    before = path.lstat()
    with pytest.raises(errors.CannotCreateError, match="was left alone"):
        sockets.open_unix(str(path))
    assert path.lstat() == before
    assert stale.is_socket()


@pytest.mark.parametrize("kind", ["unix", "seqpacket", "unixgram"])
def test_fault_live_socket_stolen(opened: OpenSockets, tmp_path: Path, kind: str) -> None:
    """A second systemfd replaces the socket of a running one, and says nothing."""
    path = str(tmp_path / "s")
    opened.keep(sockets.open_unix(path, kind=kind))
    identity = sockets.look_up_unix_path(path)
    for second in ("unix", "seqpacket", "unixgram"):
        with pytest.raises(errors.AddressInUseError, match="in use by this very process"):
            sockets.open_unix(path, kind=second)
    assert sockets.look_up_unix_path(path) == identity

    os.unlink(path)  # the fault: nothing in the kernel stops it  # noqa: PTH108
    opened.keep(sockets.open_unix(path, kind=kind))


def test_a_live_socket_with_a_full_queue_is_alive(opened: OpenSockets, tmp_path: Path) -> None:
    """A service under load refuses a probe, and is all the more not to be replaced."""
    path = str(tmp_path / "s")
    opened.keep(sockets.open_unix(path, backlog=1))
    for _ in range(2):
        opened.connect(path)
    with pytest.raises(errors.AddressInUseError):
        sockets.open_unix(path)


def test_a_socket_bound_and_not_yet_listening_is_alive(tmp_path: Path) -> None:
    """Another program may be between its bind and its listen: it refuses like a dead one."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        with pytest.raises(errors.AddressInUseError):
            sockets.open_unix(path)
        other.listen()


# -- the stale ones -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "seqpacket", "unixgram"])
def test_a_stale_socket_is_taken_over(opened: OpenSockets, tmp_path: Path, kind: str) -> None:
    """After a crash or a power cut, the service starts without a person's help."""
    path = tmp_path / "s"
    make_stale(path, socket_paths.TYPES[kind])
    opened.keep(sockets.open_unix(str(path), kind=kind))
    with socket.socket(socket.AF_UNIX, socket_paths.TYPES[kind]) as client:
        client.connect(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["s"]  # no lock file stays


def test_a_connection_that_outlives_its_listener_does_not_keep_the_path(
    opened: OpenSockets, tmp_path: Path
) -> None:
    """A predecessor that still drains has connections under that path, but serves it no more."""
    path = str(tmp_path / "s")
    listener = opened.keep(sockets.open_unix(path))
    opened.connect(path)
    opened.keep(listener.accept()[0].detach())
    listener.close()
    opened.keep(sockets.open_unix(path))
    opened.connect(path)


OPENER = """
import os, sys
from forkfirst import errors
from forkfirst.unix import sockets
directory, kept = sys.argv[1], []
print("ready", flush=True)
for number, barrier in enumerate(sys.argv[2:]):
    os.read(int(barrier), 1)  # all of them wait in the kernel for the end of one pipe
    path = f"{directory}/{number}"
    try:
        kept.append(sockets.open_unix(path))
        print("won", *sockets.look_up_unix_path(path), flush=True)
    except errors.AddressInUseError:
        print("in use", flush=True)
sys.stdin.read()
"""


def test_of_many_openers_of_a_stale_socket_exactly_one_wins(
    opened: OpenSockets, tmp_path: Path
) -> None:
    """Two units started by one event, or a person and a timer: one service, one path."""
    for number in range(ROUNDS):
        make_stale(tmp_path / str(number))
    barriers = [os.pipe() for _ in range(ROUNDS)]
    waiting = [str(read_end) for read_end, _ in barriers]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(tmp_path), *waiting],
            pass_fds=[read_end for read_end, _ in barriers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(OPENERS)
    ]
    answers = [child.stdout for child in children if child.stdout]
    try:
        assert [answer.readline() for answer in answers] == ["ready\n"] * OPENERS
        for number, (_, write_end) in enumerate(barriers):
            os.close(write_end)
            said = [answer.readline().split() for answer in answers]
            (winner,) = (words for words in said if words[0] == "won")
            path = str(tmp_path / str(number))
            assert sockets.look_up_unix_path(path) == tuple(int(word) for word in winner[1:])
            opened.connect(path)
    finally:
        for read_end, _ in barriers:
            os.close(read_end)
        for child in children:
            child.kill()
            child.communicate()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(map(str, range(ROUNDS)))


class _Pause:
    """Stops the first thread that has looked whether a path is served, before it acts on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looked, self.go_on = threading.Event(), threading.Event()
        self._look = socket_paths._is_served  # noqa: SLF001 - the moment that matters is inside
        monkeypatch.setattr(socket_paths, "_is_served", self._pass_on)

    def _pass_on(self, path: str, kind: str) -> bool:
        answer = self._look(path, kind)
        if not self.looked.is_set():
            self.looked.set()
            assert self.go_on.wait(30)
        return answer


def _start_opener(path: str, results: list[object]) -> threading.Thread:
    def _open() -> None:
        try:
            results.append(sockets.open_unix(path))
        except errors.AddressInUseError as error:
            results.append(error)

    thread = threading.Thread(target=_open)
    thread.start()
    return thread


def test_without_the_lock_two_openers_both_win(
    opened: OpenSockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the lock is for: the first looks, the second takes over, the first deletes that one."""
    path = str(tmp_path / "s")
    make_stale(Path(path))
    monkeypatch.setattr(socket_paths, "_lock", lambda _: os.open(os.devnull, os.O_RDONLY))
    pause = _Pause(monkeypatch)
    results: list[object] = []
    first = _start_opener(path, results)
    assert pause.looked.wait(30)
    opened.keep(sockets.open_unix(path))
    pause.go_on.set()
    first.join(30)
    (result,) = results
    assert isinstance(result, int)  # the fault: it was told that it has the path, as the other was
    opened.keep(result)


def test_with_the_lock_the_second_opener_waits_and_is_refused(
    opened: OpenSockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same order of events as above."""
    path = str(tmp_path / "s")
    make_stale(Path(path))
    pause = _Pause(monkeypatch)
    results: list[object] = []
    later: list[object] = []
    first = _start_opener(path, results)
    assert pause.looked.wait(30)
    with (tmp_path / ".s.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    second = _start_opener(path, later)
    pause.go_on.set()
    first.join(30)
    second.join(30)
    (won,), (refused,) = results, later
    assert isinstance(won, int)
    opened.keep(won)
    assert isinstance(refused, errors.AddressInUseError)
    opened.connect(path)


def test_a_lock_file_that_a_crash_left_is_harmless(opened: OpenSockets, tmp_path: Path) -> None:
    """The lock is the flock, not the file."""
    path = tmp_path / "s"
    (tmp_path / ".s.lock").touch()
    opened.keep(sockets.open_unix(str(path)))
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """In a shared directory it would let somebody make files elsewhere by our hand."""
    (tmp_path / ".s.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.CannotCreateError):
        sockets.open_unix(str(tmp_path / "s"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.real
def test_a_lock_that_another_user_holds_does_not_stop_us_for_ever(tmp_path: Path) -> None:
    """An unprivileged user must not be able to hang the start of root's service."""
    held = tmp_path / ".s.lock"
    held.touch()
    os.chown(held, NOBODY, NOBODY)
    with held.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(errors.AddressInUseError, match="another user is opening it"):
            sockets.open_unix(str(tmp_path / "s"))


# -- permissions ----------------------------------------------------------------------------------

MODES = """
import json, os, stat, sys
from forkfirst.unix import socket_paths, sockets
os.umask(int(sys.argv[2], 8))
seen = []
apply = socket_paths._set_permissions
def look_first(path, *rest):
    seen.append(stat.S_IMODE(os.stat(path).st_mode))
    apply(path, *rest)
socket_paths._set_permissions = look_first
sockets.open_unix(sys.argv[1], mode=int(sys.argv[3], 8))
print(json.dumps([seen[0], stat.S_IMODE(os.stat(sys.argv[1]).st_mode)]))
"""


@pytest.mark.parametrize(("umask", "mode"), [("000", "600"), ("077", "666"), ("022", "660")])
def test_the_mode_is_exact_and_never_wider_for_a_moment(
    tmp_path: Path, umask: str, mode: str
) -> None:
    """Neither the umask of a shell nor the moment between bind and chmod decides who connects."""
    first, last = run_child(MODES, str(tmp_path / "s"), umask, mode)
    assert last == int(mode, 8)
    assert first & ~last == 0


def test_without_a_mode_the_umask_decides(tmp_path: Path) -> None:
    """As for every other program that binds a path."""
    program = MODES.replace(", mode=int(sys.argv[3], 8)", "")
    _, last = run_child(program, str(tmp_path / "s"), "027")
    assert last == 0o750


@pytest.mark.real
def test_the_path_can_be_given_to_another_user(opened: OpenSockets, tmp_path: Path) -> None:
    """A web server of another user connects; nobody else does."""
    path = tmp_path / "s"
    opened.keep(sockets.open_unix(str(path), mode=0o660, owner=NOBODY, group=33))
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (NOBODY, 33)
    assert stat.S_IMODE(found.st_mode) == 0o660


GIVEN_AWAY = """
import json, os, sys
from forkfirst import errors
from forkfirst.unix import ports, sockets
os.chmod(sys.argv[1], 0o777)
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
path = sys.argv[1] + "/s"
try:
    sockets.open_unix(path, owner=0)
except errors.PermissionRefusedError as error:
    print(json.dumps([str(error), os.listdir(sys.argv[1])]))
"""


@pytest.mark.real
def test_a_failure_leaves_no_path(tmp_path: Path) -> None:
    """A path whose owner could not be set is one that the wrong people reach."""
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o711)
    message, left = run_child(GIVEN_AWAY, str(tmp_path))
    why = "this user may not give it to uid 0"
    assert message == f"cannot listen on unix:{tmp_path}/s: {why}"
    assert left == []


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    """The path is the person's; making directories is another step of the plan."""
    path = tmp_path / "missing" / "s"
    with pytest.raises(errors.CannotCreateError, match="no such file or directory"):
        sockets.open_unix(str(path))


# -- the end --------------------------------------------------------------------------------------


def test_our_path_is_removed_and_only_once(opened: OpenSockets, tmp_path: Path) -> None:
    """Whoever lists the directory sees what runs."""
    path = str(tmp_path / "s")
    opened.keep(sockets.open_unix(path))
    identity = sockets.look_up_unix_path(path)
    assert identity is not None
    assert sockets.remove_unix_path(path, identity)
    assert not sockets.remove_unix_path(path, identity)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_another_one_now_stays(opened: OpenSockets, tmp_path: Path) -> None:
    """A successor bound it anew: its socket must not go when its predecessor does."""
    path = str(tmp_path / "s")
    opened.keep(sockets.open_unix(path))
    identity = sockets.look_up_unix_path(path)
    assert identity is not None
    Path(path).unlink()
    opened.keep(sockets.open_unix(path))
    assert not sockets.remove_unix_path(path, identity)
    opened.connect(path)

    Path(path).unlink()
    Path(path).write_text("a file")
    assert not sockets.remove_unix_path(path, identity)
    assert Path(path).exists()


def test_a_directory_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    """RuntimeDirectory= is removed by systemd, often before we come to it."""
    assert not sockets.remove_unix_path(str(tmp_path / "gone" / "s"), (1, 1))


ASYNCIO = """
import asyncio, json, os, socket, sys
from forkfirst.unix import sockets

async def serve(path, **told):
    sock = socket.socket(fileno=sockets.open_unix(path))
    server = await asyncio.start_unix_server(lambda r, w: None, sock=sock, **told)
    server.close()
    await server.wait_closed()
    return os.path.exists(path)

left = [asyncio.run(serve(sys.argv[1] + "/a"))]
if sys.version_info >= (3, 13):
    left.append(asyncio.run(serve(sys.argv[1] + "/b", cleanup_socket=False)))
print(json.dumps(left))
"""


def test_asyncio_unlinks_an_inherited_socket_since_3_13_unless_told_not_to(tmp_path: Path) -> None:
    """Why whoever hands a unix socket to asyncio must tell it, and why this module cannot."""
    expected = [False, True] if sys.version_info >= (3, 13) else [True]
    assert run_child(ASYNCIO, str(tmp_path)) == expected
