"""A socket for each worker: even shares, and nothing lost by whatever becomes of a worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forkfirst.plan import keeping
from forkfirst.unix import sockets
from support import other_user
from support.hello import FAILS, HELLO, ask, connect, read_word, reload, wait_until, write
from support.load import REQUEST, Load
from support.service_home import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from support.service_home import Home

LISTEN = "web=127.0.0.1:0?reuseport=1"

# As a manager starts a service: descriptor 3, and a variable that says whose it is.
MANAGE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[2], sys.argv[2:])"
)

# Answers with five digits of its pid; waits first while there is a fifo.
NUMBERED = HELLO.replace(
    "    hello = Hello(context)\n",
    "    import os\n"
    "    if os.path.exists('held'):\n"
    "        open('held').read()\n"
    "    global ANSWER, LAST_ANSWER\n"
    "    word = b'%05d\\n' % (os.getpid() % 100000)\n"
    "    ANSWER, LAST_ANSWER = (one.replace(b'hello\\n', word) for one in (ANSWER, LAST_ANSWER))\n"
    "    hello = Hello(context)\n",
)


def _start(home: Home, *flags: object, workers: int = 2, text: str = NUMBERED) -> None:
    program = home.program("app.py", text)
    words = ("--listen", LISTEN, "--workers", workers, "--chdir", home.directory)
    home.start(f"{program}:main", *words, *flags)


def _word(pid: int) -> bytes:
    return b"%05d" % (pid % 100000)


def _pids(home: Home) -> dict[int, int]:
    """Return the pid of the worker in each slot."""
    return {one["slot"]: one["pid"] for one in home.status("app")["workers"]}


def _list_listening(port: int) -> set[str]:
    """Return every socket that listens on *port*, as /proc shows a descriptor of it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    listening = [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    return {f"socket:[{row[9]}]" for row in listening}


def _list_sockets(home: Home, pid: int = 0, name: str = "web") -> list[str]:
    """Return the sockets of the listener that *pid* has, in their order; 0 is the supervisor."""
    listening = _list_listening(int(home.address("app", name)[1]))
    return [one for one in _list_files(pid or home.pid("app")) if one in listening]


def _list_files(pid: int) -> list[str]:
    """Return what each descriptor of *pid* leads to, in their order."""
    found = []
    for entry in sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda one: int(one.name)):
        with suppress(FileNotFoundError):  # it comes and goes with an answer
            found.append(str(entry.readlink()))
    return found


def _read_port(fd: int) -> int:
    listener = socket.socket(fileno=fd)
    try:
        return int(listener.getsockname()[1])
    finally:
        listener.detach()


@contextmanager
def _asking(address: Any, count: int) -> Iterator[Sequence[socket.socket]]:
    """Have so many clients ask at once, each over its own connection."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(count)]
        for one in clients:
            one.sendall(REQUEST)
        yield clients


# -- even shares ----------------------------------------------------------------------------------


def test_each_worker_has_a_share_of_the_connections(home: Home) -> None:
    """By chance; of 128 at once, that one has more than half happens once in ten billion times."""
    _start(home, workers=4)
    with _asking(home.address("app"), 128) as clients:
        shares = Counter(read_word(one) for one in clients)
    assert set(shares) == {_word(pid) for pid in _pids(home).values()}
    assert max(shares.values()) < 64


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=["plain", "preloaded"])
def test_each_worker_has_one_socket_and_the_supervisor_all(
    home: Home, flags: tuple[str, ...]
) -> None:
    """What only the supervisor has besides is there for the next one; the template has none."""
    _start(home, *flags, workers=3)
    pids = _pids(home)
    held = _list_sockets(home)
    assert len(held) == 3
    assert {slot: _list_sockets(home, pid) for slot, pid in pids.items()} == {
        slot: [one] for slot, one in enumerate(held)
    }
    others = home.list_processes().keys() - {home.pid("app"), *pids.values()}
    assert {one: _list_sockets(home, one) for one in others} == {one: [] for one in others}
    assert ", 3 sockets\n" in home.forkfirst("status", "app").out


# -- what becomes of a worker ---------------------------------------------------------------------


def test_who_waits_for_a_worker_that_is_killed_is_served_by_its_replacement(home: Home) -> None:
    """The queue is the supervisor's, and the next one has the same."""
    _start(home)
    killed = _pids(home)[1]
    os.kill(killed, signal.SIGSTOP)
    with _asking(home.address("app"), 40) as clients:
        os.kill(killed, signal.SIGKILL)
        words = {read_word(one) for one in clients}
    assert words == {_word(pid) for pid in _pids(home).values()}
    assert _word(killed) not in words


def test_nobody_is_sent_to_a_worker_that_is_not_there(home: Home) -> None:
    """Until its replacement is ready; however long that takes, the others serve all who come."""
    _start(home)
    pids = _pids(home)
    os.mkfifo(home.directory / "held")
    os.kill(pids[0], signal.SIGKILL)
    wait_until(home, lambda found: "starting" in {one["state"] for one in found["workers"]})
    with _asking(home.address("app"), 32) as clients:
        assert {read_word(one) for one in clients} == {_word(pids[1])}
    (home.directory / "held").write_text("")
    wait_until(home, lambda found: {one["state"] for one in found["workers"]} == {"ready"})
    with _asking(home.address("app"), 64) as clients:
        assert len({read_word(one) for one in clients}) == 2


# -- more workers, and fewer ----------------------------------------------------------------------


def _scale(home: Home, workers: int) -> None:
    assert home.forkfirst("scale", "app", workers).status == 0
    wait_until(
        home,
        lambda found: (
            [one["state"] for one in found["workers"]] == ["ready"] * workers
            and found["sockets"] == [workers]
        ),
    )


def test_no_request_is_lost_when_there_are_fewer_and_more_workers_again(home: Home) -> None:
    """A socket that is to go is dealt none any more; only then it is emptied, and ended."""
    _start(home, workers=4)
    with Load(home.address("app"), clients=16) as load:
        for workers in (2, 4):
            _scale(home, workers)
            load.wait_for_more(100)
    assert load.failures == []
    with _asking(home.address("app"), 128) as clients:
        assert len({read_word(one) for one in clients}) == 4
    assert "too late" not in home.log("app")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["asyncio", "uvloop"])
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preloaded"])
def test_no_request_is_lost_by_many_changes(
    home: Home, runtime: str, preload: tuple[str, ...]
) -> None:
    """The same for long, on every loop that has its own way to accept, and beside reloads."""
    write(home, "first")
    words = ("--listen", LISTEN, "--workers", 4, "--runtime", runtime, *preload)
    home.start(f"{home.directory}/app.py:main", *words)
    with Load(home.address("app"), clients=32) as load:
        for workers in (2, 4, 1, 3) * 3:
            _scale(home, workers)
            assert reload(home).status == 0
            load.wait_for_more(200)
    assert load.failures == []


def test_who_waits_for_a_worker_that_is_to_leave_is_served_by_it(home: Home) -> None:
    """However long that takes it; nobody else has its queue."""
    _start(home)
    leaving = _pids(home)[1]
    os.kill(leaving, signal.SIGSTOP)
    with _asking(home.address("app"), 40) as clients:
        assert home.forkfirst("scale", "app", 1).status == 0
        states = {one["pid"]: one["state"] for one in home.status("app")["workers"]}
        assert states[leaving] == "yielding"
        os.kill(leaving, signal.SIGCONT)
        assert _word(leaving) in {read_word(one) for one in clients}
    wait_until(home, lambda found: len(found["workers"]) == 1)


def test_a_scale_that_is_taken_back_at_once_changes_nothing(home: Home) -> None:
    """Whoever yields is still there, and takes connections again."""
    _start(home, workers=3)
    before = _pids(home)
    home.forkfirst("scale", "app", 1)
    home.forkfirst("scale", "app", 3)
    wait_until(home, lambda found: {one["state"] for one in found["workers"]} == {"ready"})
    assert _pids(home) == before


# -- other code, other settings, another forkfirst ------------------------------------------------


def test_no_request_is_lost_by_reloads(home: Home) -> None:
    """The new worker of a slot accepts from the same socket before the old one stops to."""
    write(home, "first")
    words = ("--listen", LISTEN, "--workers", 3)
    home.start(f"{home.directory}/app.py:main", *words)
    before = _list_sockets(home)
    with Load(home.address("app")) as load:
        write(home, "other")
        assert reload(home).status == 0
        load.wait_for_more(100)
    assert load.failures == []
    assert load.words == [b"first\n", b"other\n"]
    assert _list_sockets(home) == before


def _configure(home: Home, listen: Sequence[str], workers: int) -> None:
    settings = {"target": "app.py:main", "listen": list(listen), "workers": workers}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (home.directory / "forkfirst.toml").write_text("[service.app]\n" + "\n".join(lines) + "\n")


@pytest.mark.slow
def test_a_reload_adds_and_removes_listeners_and_workers(home: Home) -> None:
    """All of that in one motion, and nothing is left open that nobody needs."""
    write(home, "first")
    other = "other=127.0.0.1:0?reuseport=1"
    _configure(home, [LISTEN], 3)
    home.start("app")
    before = _list_sockets(home)
    with Load(home.address("app")) as load:
        _configure(home, [other, LISTEN], 2)
        assert reload(home).status == 0
        found = wait_until(home, lambda found: found["sockets"] == [2, 2])
        assert [name for name, _ in found["listeners"]] == ["other", "web"]
        assert _list_sockets(home) == before[:2]
        gone = set(_list_sockets(home, name="other"))
        assert len(gone) == 2
        home.program("app.py", FAILS)
        _configure(home, [other, LISTEN, "third=127.0.0.1:0?reuseport=1"], 4)
        assert reload(home).status == 70
        assert home.status("app")["sockets"] == [2, 2]
        write(home, "third")
        _configure(home, [LISTEN], 4)
        assert reload(home).status == 0
        wait_until(home, lambda found: found["sockets"] == [4] and len(found["workers"]) == 4)
        load.wait_for_more(50)
    assert load.failures == []
    assert gone.isdisjoint(_list_files(home.pid("app")))


@pytest.mark.slow
def test_an_upgrade_keeps_every_socket(home: Home) -> None:
    """The very same ones, by their inodes; and what follows from the fleet goes on to."""
    _start(home, workers=3)
    before = _list_sockets(home)
    with Load(home.address("app")) as load:
        assert home.forkfirst("upgrade", "app").status == 0
        load.wait_for_more(50)
    assert load.failures == []
    assert _list_sockets(home) == before
    _scale(home, 2)
    assert _list_sockets(home) == before[:2]


@pytest.mark.slow
def test_the_socket_that_a_manager_keeps_is_one_of_several_again(home: Home) -> None:
    """Who comes between two starts waits in it; in between it is the only one."""
    first = sockets.open_tcp("127.0.0.1", 0, joinable=True)
    kept = f"127.0.0.1:{_read_port(first)}"
    program = home.program("app.py", HELLO)
    service = home.words(
        *("run", f"{program}:main", "--workers", 3, "--listen", f"web={kept}?reuseport=1")
    )
    name = keeping.make_name(f"web={kept}?reuseport=1")
    environment = {**home.environment, "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
    try:
        for _ in range(2):
            with connect(("127.0.0.1", _read_port(first))) as early:
                early.sendall(REQUEST)
                process = home.open(
                    *(sys.executable, "-c", MANAGE, first, *service),
                    pass_fds=[first],
                    env=environment,
                )
                assert read_word(early) == b"hello"
                links = _list_files(process.pid)
                assert sum(link in links for link in _list_listening(_read_port(first))) == 3
                process.terminate()
                assert process.wait(PATIENCE) == 0
                assert len(_list_listening(_read_port(first))) == 1
    finally:
        os.close(first)


# -- what it cannot do ----------------------------------------------------------------------------


def test_a_second_service_on_the_port_is_refused(home: Home) -> None:
    """With SO_REUSEPORT alone it would start unnoticed, and take half of the traffic."""
    _start(home)
    address = dict(home.status("app")["listeners"])["web"]
    program = home.program("two.py", HELLO)
    words = ("--listen", f"web={address}?reuseport=1", "--workers", 2)
    done = home.forkfirst("start", f"{program}:main", *words)
    assert done.status == 69, done
    assert f"cannot listen on {address}: address in use by pid {home.pid('app')}" in done.err
    assert ask(home.address("app"))


@pytest.mark.slow
def test_without_the_right_to_open_more_sockets_more_workers_share_them(home: Home) -> None:
    """As another user: those that were opened before serve all, and the log says it once."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    other_user.open_home(home)
    home.program("app.py", HELLO)
    listen = f"web={other_user.own_address(81)}?reuseport=1"
    words = ("--user", "nobody", "--listen", listen, "--workers", 2, "app.py:main")
    done = other_user.forkfirst_as(home, "start", *words)
    assert done.status == 0, done
    for workers, count in ((4, 2), (1, 1), (3, 1)):
        assert other_user.forkfirst_as(home, "scale", "app", workers).status == 0
        found = _wait_as_root(home, workers, count)
        assert other_user.forkfirst_as(home, "upgrade", "app").status == 0
    host, _, port = dict(found["listeners"])["web"].rpartition(":")
    with _asking((host, int(port)), 40) as clients:
        assert {read_word(one) for one in clients} == {b"hello"}
    assert other_user.forkfirst_as(home, "stop", "app").status == 0
    said = Path(found["log"]).read_text()
    assert said.count("cannot open another socket for web: Permission denied; more workers") == 1


def _wait_as_root(home: Home, workers: int, count: int) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = json.loads(other_user.forkfirst_as(home, "status", "app", "--json").out)
        states = [one["state"] for one in found["workers"]]
        if states == ["ready"] * workers and found["sockets"] == [count]:
            return dict(found)
        assert time.monotonic() < deadline, found
