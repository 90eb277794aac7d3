"""The supervisor with real workers: what ends comes back, what must end does, nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.service_home import PROGRAMS, holding, talk, wait_gone

if TYPE_CHECKING:
    from support.service_home import Home, Told

SERVE = f"{PROGRAMS / 'workers.py'}:serve"
LISTEN = ("--listen", "web=127.0.0.1:0")


def _start(home: Home, told: Told, *flags: object, workers: int = 2) -> list[int]:
    """Start "app" and return the pids of its workers."""
    home.start(SERVE, "--name", "app", *LISTEN, "--workers", workers, *flags)
    return sorted(_hear_ready(told) for _ in range(workers))


def _hear_ready(told: Told) -> int:
    """Wait until a worker has told that it is ready; others may stop meanwhile."""
    while True:
        word, pid, *_ = told.wait().split()
        if word == "ready":
            return int(pid)


def _hear_stopping(told: Told) -> int:
    word, pid = told.wait().split()
    assert word == "stopping"
    return int(pid)


def _workers(home: Home, state: str = "ready") -> list[int]:
    return sorted(one["pid"] for one in home.status("app")["workers"] if one["state"] == state)


def _wait_for(home: Home, count: int) -> None:
    """Wait until *count* workers say that they are ready; `ready` is told just after `tell`."""
    deadline = time.monotonic() + 30
    while len(_workers(home)) != count:
        assert time.monotonic() < deadline


def test_workers_are_started_shown_and_stopped(home: Home, told: Told) -> None:
    """One name, one status, one stop: that they are many is the supervisor's business."""
    pids = _start(home, told, workers=3)
    found = home.status("app")
    assert (found["state"], found["asked"]) == ("ready", 3)
    assert sorted(one["pid"] for one in found["workers"]) == pids
    assert {one["generation"] for one in found["workers"]} == {1}
    assert home.pid("app") not in pids
    assert int(talk(home.address("app"), b"who\n")) in pids
    home.stop("app")
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]


@pytest.mark.uncovered
def test_the_supervisor_never_has_a_runtime(home: Home, told: Told) -> None:
    """That is why it may fork for ever; a module of asyncio would be in every worker's way too."""
    _start(home, told)
    libraries = Path(f"/proc/{home.pid('app')}/maps").read_text()
    for name in ("_asyncio", "_ssl", "_uuid", "msgspec", "uvloop"):
        assert f"{name}.cpython" not in libraries
    assert len(list(Path(f"/proc/{home.pid('app')}/task").iterdir())) == 1


def test_a_killed_worker_is_replaced_and_the_others_never_notice(home: Home, told: Told) -> None:
    """The reason for having a supervisor."""
    first, second = _start(home, told)
    os.kill(first, signal.SIGKILL)
    third = _hear_ready(told)
    assert third not in (first, second)
    _wait_for(home, 2)
    assert _workers(home) == sorted((second, third))
    assert f"worker 1 (pid {first}) was killed by SIGKILL" in home.log("app") or (
        f"worker 2 (pid {first}) was killed by SIGKILL" in home.log("app")
    )


def test_when_the_supervisor_is_killed_nobody_keeps_its_listeners(home: Home, told: Told) -> None:
    """One that served on could be neither stopped nor reloaded; within a second all are gone."""
    pids = _start(home, told)
    talk(home.address("app"), b"who\n")
    with holding(pids[0]) as first, holding(pids[1]) as second:
        os.kill(home.pid("app"), signal.SIGKILL)
        deadline = time.monotonic() + 1.0
        for pidfd in (first, second):
            assert pidfd is not None
            wait_gone(pidfd, deadline)
    assert home.start(SERVE, "--name", "app", *LISTEN, "--workers", 2).status == 0


def test_a_worker_whose_loop_is_stuck_dies_with_the_supervisor_too(home: Home, told: Told) -> None:
    """The kernel does it: a thread of the worker could not, where C code keeps the lock."""
    (pid,) = _start(home, told, workers=1)
    with holding(pid) as pidfd:
        assert pidfd is not None
        os.kill(pid, signal.SIGSTOP)  # as deaf as a process can be
        os.kill(home.pid("app"), signal.SIGKILL)
        wait_gone(pidfd, time.monotonic() + 1.0)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("async def main(context):\n    raise RuntimeError('no database')\n", 70, "no database"),
        ("async def main(context):\n    raise SystemExit(5)\n", 5, "ended with status 5"),
        ("import os\nos.kill(os.getpid(), 9)\n", 137, "was killed by SIGKILL"),
        ("async def other(context):\n    pass\n", 66, "has no 'main'"),
    ],
)
def test_a_first_start_that_fails_says_why_and_leaves_nothing(
    home: Home, text: str, status: int, said: str
) -> None:
    """As with one process: the worker's own error, its status, and no forty tracebacks."""
    program = home.program("app.py", text)
    done = home.forkfirst("start", program, "--workers", 2)
    assert done.status == status, done
    assert said in done.err
    assert home.list_processes() == {}
    assert home.list_files() == []


def test_a_first_start_that_hangs_shows_where(home: Home) -> None:
    """The launcher asks the supervisor, and that asks the worker."""
    program = home.program(
        "app.py", "import asyncio\nasync def main(context):\n    await asyncio.Event().wait()\n"
    )
    done = home.forkfirst("start", program, "--workers", 1, "--ready-timeout", "0.5s")
    assert done.status == 124, done
    assert "asyncio.Event().wait()" in done.err
    assert home.list_processes() == {}


def test_scale_starts_and_drains(home: Home, told: Told) -> None:
    """As many as asked for, at once, and by the same rules as ever."""
    _start(home, told)
    done = home.forkfirst("scale", "app", 4)
    assert (done.status, done.out) == (0, "app: 2 → 4 workers asked for\n")
    _hear_ready(told)
    _hear_ready(told)
    _wait_for(home, 4)
    assert home.forkfirst("scale", "app", 1).status == 0
    for _ in range(3):
        _hear_stopping(told)
    assert len(_workers(home)) == 1
    assert home.forkfirst("scale", "app", 0).status != 0


def test_ttin_and_ttou_scale_by_one(home: Home, told: Told) -> None:
    """What other process managers' operators have in their fingers."""
    _start(home, told, workers=1)
    os.kill(home.pid("app"), signal.SIGTTIN)
    _hear_ready(told)
    _wait_for(home, 2)
    os.kill(home.pid("app"), signal.SIGTTOU)
    _hear_stopping(told)
    assert len(_workers(home)) == 1


def test_a_crash_loop_ends_in_a_state_that_says_so(home: Home, told: Told) -> None:
    """Not in forty tracebacks, and not in a machine that is busy with starting."""
    first, _ = _start(home, told, "--crash-limit", 1)
    with holding(first) as pidfd:
        assert pidfd is not None
        os.kill(first, signal.SIGKILL)
        wait_gone(pidfd)
    found = _wait_for_state(home, "degraded")
    assert len(found["workers"]) == 1
    assert "1 failure: no worker is started any more (1 still serves); mend" in home.log("app")
    assert home.forkfirst("scale", "app", 2).status == 0  # whoever asks wants them started
    _hear_ready(told)


def _wait_for_state(home: Home, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (found := home.status("app"))["state"] != state:
        assert time.monotonic() < deadline, found
    return found


@pytest.mark.parametrize(("policy", "status"), [("never", 3), ("on-failure", 0)])
def test_a_policy_may_leave_a_service_to_end(
    home: Home, told: Told, policy: str, status: int
) -> None:
    """A worker that is not to be replaced ends the service with its status, if it was the last."""
    words = ("--name", "app", *LISTEN, "--workers", 1, "--restart-policy", policy)
    process = home.open(*home.words("run", SERVE, *words))
    _hear_ready(told)
    _wait_for_state(home, "ready")
    talk(home.address("app"), b"exit %d\n" % status)
    assert process.wait(30) == status


def test_a_worker_that_hangs_tells_where_and_is_replaced(home: Home, told: Told) -> None:
    """Its connections are lost in any case; the service is not."""
    pids = _start(home, told, "--hang-timeout", "0.4s")
    address = home.address("app")
    with socket.create_connection(address) as connection:  # type: ignore[arg-type]  # TCP
        connection.sendall(b"hang\n")
        assert _hear_ready(told) not in pids
    _wait_for(home, 2)
    log = home.log("app")
    assert "hangs" in log
    assert "time.sleep(600)" in log


def test_stacks_are_those_of_every_worker(home: Home, told: Told) -> None:
    """A service that is stuck is stuck in one of them, and nobody knows in which."""
    pids = _start(home, told)
    out = home.forkfirst("stacks", "app").out
    for pid in pids:
        assert f"(pid {pid})" in out
    assert out.count("await context.wait_stopping()") == 2


def test_rotation_reaches_every_worker(home: Home, told: Told) -> None:
    """One that wrote on into the old file would fill a disk that nobody looks at."""
    pids = _start(home, told)
    log = home.state / "app.log"
    before = log.stat()
    done = home.forkfirst("rotate", "app")  # the first that anybody asks of it
    assert done.status == 0, done
    assert log.stat().st_ino != before.st_ino
    deadline = time.monotonic() + 30
    for pid in pids:
        while not Path(f"/proc/{pid}/fd/1").samefile(log):
            assert time.monotonic() < deadline


def test_a_full_log_is_rotated_once_for_all(home: Home) -> None:
    """Every worker finds it full at the same time; one rotation is meant, and no line is lost."""
    text = (
        "async def main(context):\n"
        "    for number in range(400):\n"
        "        print('line', number, 'x' * 90)\n"
        "    context.ready()\n"
        "    await context.wait_stopping()\n"
    )
    flags = ("--workers", 2, "--log-size", "30KiB", "--log-keep", 9)
    home.start(home.program("app.py", text), *flags)
    home.stop("app")
    logs = [home.state / "app.log", *home.state.glob("app.log.*")]
    assert 2 <= len(logs) <= 4
    written = "".join(one.read_text() for one in logs)
    assert all(written.count(f"line {number} ") == 2 for number in range(400))


def test_a_worker_is_replaced_when_it_is_old(home: Home, told: Told) -> None:
    """The new one is ready before the old one leaves."""
    (pid,) = _start(home, told, "--max-age", "0.3s", workers=1)
    assert _hear_ready(told) != pid
    assert _hear_stopping(told) == pid


def test_a_worker_is_replaced_when_it_has_served_enough(home: Home, told: Told) -> None:
    """A leak that grows with the requests is bounded by them."""
    (pid,) = _start(home, told, "--max-requests", "10", workers=1)
    for _ in range(10):
        assert talk(home.address("app"))
    assert _hear_ready(told) != pid
    assert _hear_stopping(told) == pid


def test_in_the_foreground_it_is_the_same(home: Home, told: Told) -> None:
    """Under a service manager the supervisor is the main process."""
    words = ("--name", "app", *LISTEN, "--workers", 2)
    process = home.open(*home.words("run", SERVE, *words))
    for _ in range(2):
        _hear_ready(told)
    assert home.pid("app") == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert home.list_processes() == {}
