"""Reloads under the genuine manager: it is told what it must know, and no request is lost."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from support.real_systemd import PYTHON_INSIDE, SOURCE_INSIDE, RealSystemd
from support.real_units import FORKFIRST, ask, loading, start

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.real

PLACE = "/usr/local/lib/reloaded"
TARGET = f"{PLACE}/app.py:main"
PROGRAM = """
import asyncio, json, os
count = 0
connections = set()
async def answer(reader, writer):
    connections.add(asyncio.current_task())
    await reader.readline()
    uids = [line.split()[1:] for line in open("/proc/self/status") if line.startswith("Uid")]
    told = {"word": "WORD", "pid": os.getpid(), "uids": uids[0], "count": count}
    writer.write(json.dumps(told).encode())
    await writer.drain()
    writer.close()
    connections.discard(asyncio.current_task())
async def main(context):
    global count
    count = int(context.stored_state("count") or 0) + 1
    context.store_state("count", str(count).encode())
    server = await asyncio.start_server(answer, sock=context.listener())
    context.ready("WORD")
    await context.wait_stopping()
    server.close()
    for _ in range(8):
        await asyncio.sleep(0)
    while connections:
        await asyncio.wait(connections)
"""
BROKEN = "raise RuntimeError('no database')\n"
_COUNT = itertools.count()


def write(systemd: RealSystemd, text: str, word: str = "") -> None:
    """Put *text* where the service's program is, of a size that it never had."""
    place = systemd.path(PLACE)
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    (place / "app.py").write_text(text.replace("WORD", word) + f"# {next(_COUNT) * 'x'}\n")


def reloading_unit(systemd: RealSystemd) -> tuple[str, str]:
    """Return the type of a unit that can be reloaded, and what it needs for that."""
    if systemd.version >= 253:
        return "notify-reload", ""
    return "notify", "ExecReload=/bin/kill -HUP $MAINPID\n"


def wait_until(systemd: RealSystemd, name: str, status: str) -> None:
    """Wait for the words *status*: before systemd 253, a reload by signal is not waited for."""
    deadline = time.monotonic() + 30
    while (found := systemd.show(name, "StatusText")) != status:
        assert time.monotonic() < deadline, (found, systemd.read_journal(name))


def assert_well(systemd: RealSystemd, name: str) -> None:
    """Assert that the unit runs and never had a failure, nor a word of doubt."""
    assert systemd.show(name, "ActiveState") == "active"
    assert systemd.show(name, "Result") == "success"
    assert systemd.show(name, "NRestarts") == "0"
    journal = "\n".join(systemd.read_journal(name))
    for doubt in ("not our child", "Failed with", "does not belong", "cannot"):
        assert doubt not in journal, journal


@pytest.mark.parametrize("workers", ["", "--workers 2"])
def test_a_reload_loses_no_request_and_the_unit_never_fails(
    real_systemd: RealSystemd, unit: Callable[..., str], workers: str
) -> None:
    """With workers the main process stays; without, systemd follows to the next one."""
    kind, settings = reloading_unit(real_systemd)
    write(real_systemd, PROGRAM, "word0")
    words = f"{TARGET} --listen 127.0.0.1:8121 {workers}"
    name = unit(words, f"{settings}WatchdogSec=5\n", kind=kind)
    start(real_systemd, name)
    pids = [real_systemd.show(name, "MainPID")]
    with loading(real_systemd, 8121) as told:
        for number in (1, 2, 3):
            write(real_systemd, PROGRAM, f"word{number}")
            real_systemd.run("systemctl", "reload", name)
            status = f"generation {number + 1} serves" if workers else f"word{number}"
            wait_until(real_systemd, name, status)
            assert ask(real_systemd, "8121")["word"] == f"word{number}"
            pids.append(real_systemd.show(name, "MainPID"))
    served, failed = told
    assert failed == "[]"
    assert int(served) > 20
    if workers:
        assert len(set(pids)) == 1
    else:
        assert len(set(pids)) == 4
        assert str(ask(real_systemd, "8121")["pid"]) == pids[-1]
    assert_well(real_systemd, name)
    real_systemd.run("systemctl", "stop", name)
    assert real_systemd.show(name, "Result") == "success", real_systemd.read_journal(name)


@pytest.mark.parametrize("workers", ["", "--workers 1"])
def test_a_reload_into_broken_code_is_over_and_changes_nothing(
    real_systemd: RealSystemd, unit: Callable[..., str], workers: str
) -> None:
    """`systemctl reload` is not left waiting, and the unit says what became of it."""
    kind, settings = reloading_unit(real_systemd)
    write(real_systemd, PROGRAM, "good")
    name = unit(f"{TARGET} --listen 127.0.0.1:8122 {workers}", settings, kind=kind)
    start(real_systemd, name)
    pid = real_systemd.show(name, "MainPID")
    write(real_systemd, BROKEN)
    real_systemd.run("systemctl", "reload", name, timeout=30)
    deadline = time.monotonic() + 30
    while not real_systemd.show(name, "StatusText").startswith("not reloaded"):
        assert time.monotonic() < deadline, real_systemd.read_journal(name)
    assert real_systemd.show(name, "ActiveState") == "active"
    assert real_systemd.show(name, "MainPID") == pid
    assert ask(real_systemd, "8122")["word"] == "good"
    assert "RuntimeError: no database" in real_systemd.read_journal(name)


def test_the_successor_feeds_the_watchdog_and_its_crash_is_seen(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """It is the main process in every respect."""
    kind, settings = reloading_unit(real_systemd)
    write(real_systemd, PROGRAM, "first")
    limits = "WatchdogSec=1\nRestart=on-failure\nRestartSec=0\nLimitCORE=0\n"
    name = unit(f"{TARGET} --listen 127.0.0.1:8123", settings + limits, kind=kind)
    start(real_systemd, name)
    write(real_systemd, PROGRAM, "other")
    real_systemd.run("systemctl", "reload", name)
    wait_until(real_systemd, name, "other")
    pid = real_systemd.show(name, "MainPID")
    real_systemd.run("sleep", "2.5")  # more than twice the limit: it was fed, or it would be dead
    assert real_systemd.show(name, "MainPID") == pid
    assert_well(real_systemd, name)
    real_systemd.run("kill", "-KILL", pid)
    deadline = time.monotonic() + 30
    while real_systemd.show(name, "NRestarts") != "1":
        assert time.monotonic() < deadline, real_systemd.read_journal(name)
    start(real_systemd, name)
    assert ask(real_systemd, "8123")["pid"] != pid


@pytest.mark.parametrize("workers", ["", "--workers 2"])
def test_a_service_that_became_another_user_reloads_as_that_user(
    real_systemd: RealSystemd, unit: Callable[..., str], workers: str
) -> None:
    """SIGHUP cannot give it back what it has given up; the low port stays open all the while."""
    kind, settings = reloading_unit(real_systemd)
    write(real_systemd, PROGRAM, "first")
    name = unit(f"{TARGET} --user nobody --listen 127.0.0.1:84 {workers}", settings, kind=kind)
    start(real_systemd, name)
    write(real_systemd, PROGRAM, "other")
    real_systemd.run("systemctl", "reload", name)
    wait_until(real_systemd, name, "generation 2 serves" if workers else "other")
    told = ask(real_systemd, "84")
    assert (told["word"], told["uids"]) == ("other", ["65534"] * 4)
    assert_well(real_systemd, name)


def test_what_was_stored_is_there_after_a_reload_as_after_a_restart(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Whoever comes next begins with it, however it has come."""
    kind, settings = reloading_unit(real_systemd)
    settings += "FileDescriptorStoreMax=4\nEnvironment=FDSTORE=4\n"
    name = unit(f"{TARGET} --listen 127.0.0.1:8125", settings, kind=kind)
    write(real_systemd, PROGRAM, "word1")
    start(real_systemd, name)
    for number in (2, 3):
        write(real_systemd, PROGRAM, f"word{number}")
        real_systemd.run("systemctl", "reload", name)
        wait_until(real_systemd, name, f"word{number}")
        assert ask(real_systemd, "8125")["count"] == number
    real_systemd.run("systemctl", "restart", name)
    assert ask(real_systemd, "8125")["count"] == 4
    assert real_systemd.show(name, "NFileDescriptorStore") == "2", "that, and the listener"


def test_a_listener_that_is_stored_refuses_nobody_during_a_restart(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Without a socket unit: systemd holds it while nobody is there, and it comes back by name."""
    stores = "    context.store(context.listener().fileno(), 'web')\n    context.ready"
    write(real_systemd, PROGRAM.replace("    context.ready", stores), "stored")
    name = unit(f"{TARGET} --listen web=127.0.0.1:8126", "FileDescriptorStoreMax=4\n")
    start(real_systemd, name)
    with loading(real_systemd, 8126) as told:
        for number in (2, 3):
            real_systemd.run("systemctl", "restart", name)
            assert ask(real_systemd, "8126")["count"] == number
    served, failed = told
    assert failed == "[]"
    assert int(served) > 20
    assert real_systemd.show(name, "NFileDescriptorStore") == "2"


def test_a_forking_unit_follows_the_pid_file(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """When its main process ends, systemd looks there for the next one before it gives up."""
    write(real_systemd, PROGRAM, "first")
    environment = f"PYTHONPATH={SOURCE_INSIDE}"
    settings = f"PIDFile=/run/forkfirst/forking.pid\nExecReload={FORKFIRST} reload forking\n"
    words = f"--name forking {TARGET} --listen 127.0.0.1:8124"
    name = unit(words, settings, kind="forking", command="start")
    start(real_systemd, name)
    with loading(real_systemd, 8124) as told:
        write(real_systemd, PROGRAM, "other")
        real_systemd.run("systemctl", "reload", name)
        pid = str(ask(real_systemd, "8124")["pid"])
        deadline = time.monotonic() + 30
        while real_systemd.show(name, "MainPID") != pid:
            assert time.monotonic() < deadline, real_systemd.read_journal(name)
    assert told[1] == "[]"
    asking = ("env", environment, PYTHON_INSIDE, "-m", "forkfirst", "status", "forking")
    assert f"pid {pid}" in real_systemd.run(*asking)
    real_systemd.run("systemctl", "stop", name)
    assert real_systemd.show(name, "Result") == "success", real_systemd.read_journal(name)
