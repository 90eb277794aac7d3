"""Listeners that a service opened itself, kept by the genuine manager while nobody is there."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.real_systemd import PYTHON_INSIDE, SOURCE_INSIDE, RealSystemd
from support.real_units import FORKFIRST, ask, loading, start

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.real

PLACE = "/usr/local/lib/kept"
PROGRAM = """
import asyncio, json, os
connections = set()
async def answer(reader, writer):
    connections.add(asyncio.current_task())
    await reader.readline()
    writer.write(json.dumps({"pid": os.getpid()}).encode())
    await writer.drain()
    writer.close()
    connections.discard(asyncio.current_task())
async def main(context):
    every = [one for found in context.listeners.values() for one in found]
    servers = [await asyncio.start_server(answer, sock=one) for one in every]
    context.ready("WORD")
    await context.wait_stopping()
    for server in servers:
        server.close()
    for _ in range(8):
        await asyncio.sleep(0)
    while connections:
        await asyncio.wait(connections)
"""
KEEPS_NOTHING = "FileDescriptorStoreMax=0\n"
RUNTIME = "RuntimeDirectory=kept\nRuntimeDirectoryPreserve=restart\n"
RESTARTS = "Restart=on-failure\nRestartSec=0.3\nLimitCORE=0\n"
ANSWERED = ['{"pid": '] * 23
QUEUE = """
import json, socket, sys
address = sys.argv[1] if sys.argv[1].startswith("/") else ("127.0.0.1", int(sys.argv[1]))
family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
def connect():
    connection = socket.socket(family)
    connection.settimeout(30)
    connection.connect(address)
    connection.sendall(b"\\n")
    return connection
waiting = [connect() for _ in range(20)]
print("queued", flush=True)
sys.stdin.readline()
found = []
for one in [*waiting, *(None for _ in range(3))]:
    try:
        found.append((one or connect()).makefile().read()[:8])
    except OSError as error:
        found.append(repr(error))
print(json.dumps(found))
"""
"""Twenty connections that nobody accepts; when told to, reads the answers, and asks thrice more."""


def keeps(systemd: RealSystemd) -> str:
    """Return what a unit needs for its listeners to be kept: a newer systemd says it itself."""
    said = "" if systemd.version >= 254 else "Environment=FDSTORE=16\n"
    return f"FileDescriptorStoreMax=16\n{said}"


def write(systemd: RealSystemd, word: str = "serving") -> str:
    """Write the program, so that its status is *word*; return its target."""
    place = systemd.path(PLACE)
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    (place / "app.py").write_text(PROGRAM.replace("WORD", word))
    return f"{PLACE}/app.py:main"


def count_kept(systemd: RealSystemd, name: str) -> int:
    """Return how many descriptors systemd keeps for the unit *name*."""
    return int(systemd.show(name, "NFileDescriptorStore"))


def wait_until(systemd: RealSystemd, name: str, holds: Callable[[], bool]) -> None:
    """Wait until *holds*, as systemd tells nobody when it has read a message."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "\n".join(systemd.read_journal(name))


def kill_with_a_queue(systemd: RealSystemd, name: str, address: str) -> list[str]:
    """Let twenty connect to a service that accepts nobody, kill it, and return what they got."""
    restarts = int(systemd.show(name, "NRestarts"))
    systemd.run("systemctl", "kill", "--signal=STOP", name)
    command = systemd.enter(PYTHON_INSIDE, "-c", QUEUE, address)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as clients:
        assert clients.stdout is not None
        assert clients.stdout.readline() == "queued\n"
        systemd.run("systemctl", "kill", "--signal=KILL", name)
        # They ask while nobody is there: systemd waits RestartSec= before it starts the next.
        out, _ = clients.communicate("\n", timeout=60)
    wait_until(systemd, name, lambda: systemd.show(name, "NRestarts") == str(restarts + 1))
    found: list[str] = json.loads(out)
    return found


@pytest.mark.parametrize("workers", ["", "--workers 2"])
def test_a_restart_refuses_and_resets_nobody(
    real_systemd: RealSystemd, unit: Callable[..., str], workers: str
) -> None:
    """Without a socket unit, and without a line of code."""
    words = f"{write(real_systemd)} --listen web=127.0.0.1:8131 {workers}"
    name = unit(words, keeps(real_systemd))
    start(real_systemd, name)
    first = ask(real_systemd, "8131")["pid"]
    with loading(real_systemd, 8131) as told:
        for _ in range(3):
            real_systemd.run("systemctl", "restart", name)
    assert told[1] == "[]"
    assert int(told[0]) > 20
    assert ask(real_systemd, "8131")["pid"] != first
    assert count_kept(real_systemd, name) == 1
    real_systemd.run("systemctl", "stop", name)
    assert count_kept(real_systemd, name) == 0, "who stops a service frees its address"


def test_without_a_store_a_restart_does_refuse(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Shown to be the store's doing; and nothing is sent that systemd would warn of."""
    name = unit(f"{write(real_systemd)} --listen web=127.0.0.1:8132", KEEPS_NOTHING)
    start(real_systemd, name)
    with loading(real_systemd, 8132) as told:
        for _ in range(3):
            real_systemd.run("systemctl", "restart", name)
    assert "ConnectionRefusedError" in told[1]
    assert "FileDescriptorStoreMax" not in "\n".join(real_systemd.read_journal(name))


@pytest.mark.parametrize("workers", ["", "--workers 2"])
@pytest.mark.parametrize("address", ["8133", "/run/kept/socket"])
def test_who_waits_to_be_accepted_outlives_a_crash(
    real_systemd: RealSystemd, unit: Callable[..., str], workers: str, address: str
) -> None:
    """The queue is the socket's: the next start accepts those who came to the one that died."""
    declared = address if "/" in address else f"127.0.0.1:{address}"
    words = f"{write(real_systemd)} --listen web={declared} {workers}"
    name = unit(words, keeps(real_systemd) + RUNTIME + RESTARTS)
    start(real_systemd, name)
    for _ in range(2):  # the second time, the one that dies had taken it back itself
        assert kill_with_a_queue(real_systemd, name, address) == ANSWERED
    assert count_kept(real_systemd, name) == 1


def test_without_a_store_they_are_lost(real_systemd: RealSystemd, unit: Callable[..., str]) -> None:
    """Shown to be the store's doing."""
    name = unit(f"{write(real_systemd)} --listen web=127.0.0.1:8134", KEEPS_NOTHING + RESTARTS)
    start(real_systemd, name)
    found = kill_with_a_queue(real_systemd, name, "8134")
    assert all("ConnectionResetError" in one for one in found[:20]), found
    assert all("ConnectionRefusedError" in one for one in found[20:]), found


def test_a_restart_refuses_nobody_at_a_path(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The path stays as well: it goes with its directory, which systemd removes at the end."""
    path = "/run/kept/socket"
    name = unit(f"{write(real_systemd)} --listen web={path}", keeps(real_systemd) + RUNTIME)
    start(real_systemd, name)
    with loading(real_systemd, path) as told:
        for _ in range(3):
            real_systemd.run("systemctl", "restart", name)
    assert told[1] == "[]"
    assert int(told[0]) > 20
    real_systemd.run("systemctl", "stop", name)
    assert not real_systemd.path(path).exists()


def test_a_path_that_somebody_removed_is_made_anew(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Nobody would come to the socket that was kept: RuntimeDirectory= alone goes at a restart."""
    path = "/run/kept/socket"
    name = unit(
        f"{write(real_systemd)} --listen web={path}",
        f"{keeps(real_systemd)}RuntimeDirectory=kept\n",
    )
    start(real_systemd, name)
    for _ in range(2):
        first = ask(real_systemd, path)["pid"]
        real_systemd.run("systemctl", "restart", name)
        assert ask(real_systemd, path)["pid"] != first
        assert count_kept(real_systemd, name) == 1


def test_a_listener_that_is_declared_otherwise_is_bound_anew(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """What was kept is closed first, for it has the address; what is not declared is not kept."""
    name = unit(
        f"{write(real_systemd)} --listen a=127.0.0.1:8135 --listen b=127.0.0.1:8136",
        keeps(real_systemd),
    )
    start(real_systemd, name)
    wait_until(real_systemd, name, lambda: count_kept(real_systemd, name) == 2)
    file = real_systemd.path(f"/etc/systemd/system/{name}")
    file.write_text(file.read_text().replace("8135 ", "8135?backlog=7 ").replace("8136", "8137"))
    real_systemd.run("systemctl", "daemon-reload")
    real_systemd.run("systemctl", "restart", name)
    for port in ("8135", "8137"):
        ask(real_systemd, port)
    listening = real_systemd.path("/proc/1/net/tcp").read_text()
    assert f":{8136:X} " not in listening
    assert f":{8137:X} " in listening
    wait_until(real_systemd, name, lambda: count_kept(real_systemd, name) == 2)


@pytest.mark.parametrize("workers", ["", "--workers 2"])
def test_a_reload_that_moves_listeners_keeps_what_it_has_then(
    real_systemd: RealSystemd, unit: Callable[..., str], workers: str
) -> None:
    """One that is gone is closed by systemd as well, or its clients would wait for ever."""
    first = f"{write(real_systemd)} --name moved {workers} --listen a=127.0.0.1:8138"
    name = unit(
        f"{first} --listen b=127.0.0.1:8139", f"{keeps(real_systemd)}RuntimeDirectory=moved\n"
    )
    start(real_systemd, name)
    wait_until(real_systemd, name, lambda: count_kept(real_systemd, name) == 2)
    second = f"{first} --listen c=127.0.0.1:8140 --listen d=127.0.0.1:8141"
    reload = f"{FORKFIRST} reload moved --control /run/moved/moved.sock -- {PYTHON_INSIDE} -m"
    with loading(real_systemd, 8138) as told:
        real_systemd.run(
            "env", f"PYTHONPATH={SOURCE_INSIDE}", *f"{reload} forkfirst start {second}".split()
        )
        wait_until(real_systemd, name, lambda: count_kept(real_systemd, name) == 3)
        file = real_systemd.path(f"/etc/systemd/system/{name}")
        file.write_text(file.read_text().replace(" --listen b=127.0.0.1:8139", ""))
        real_systemd.run("systemctl", "daemon-reload")
        real_systemd.run("systemctl", "restart", name)
    assert told[1] == "[]"
    ask(real_systemd, "8138")
    wait_until(real_systemd, name, lambda: count_kept(real_systemd, name) == 1)
    listening = real_systemd.path("/proc/1/net/tcp").read_text()
    assert [port for port in range(8138, 8142) if f":{port:X} " in listening] == [8138]


def test_what_a_socket_unit_has_is_not_kept_twice(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """It outlives the service already; beside it, one that we opened ourselves is kept."""
    sockets = ("FileDescriptorName=web\nListenStream=127.0.0.1:8142",)
    words = f"{write(real_systemd)} --listen web=127.0.0.1:9 --listen own=127.0.0.1:8143"
    name = unit(words, keeps(real_systemd), sockets=sockets)
    start(real_systemd, name)
    for _ in range(2):
        wait_until(real_systemd, name, lambda: count_kept(real_systemd, name) == 1)
        ask(real_systemd, "8142")
        ask(real_systemd, "8143")
        real_systemd.run("systemctl", "restart", name)


def test_it_is_kept_for_a_service_that_becomes_another_user(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Root's low port, taken back by root's next start."""
    words = f"{write(real_systemd)} --user nobody --listen web=127.0.0.1:85 --workers 1"
    name = unit(words, keeps(real_systemd) + RESTARTS)
    start(real_systemd, name)
    assert kill_with_a_queue(real_systemd, name, "85") == ANSWERED


def test_status_says_what_is_kept(real_systemd: RealSystemd, unit: Callable[..., str]) -> None:
    """Whether the unit has the line that it needs is seen from outside."""
    words = f"{write(real_systemd)} --name seen --listen web=127.0.0.1:8144"
    for settings, shown in (
        (keeps(real_systemd), ", kept over restarts\n"),
        (KEEPS_NOTHING, "8144\n"),
    ):
        name = unit(words, f"{settings}RuntimeDirectory=seen\n")
        start(real_systemd, name)
        asking = ("env", f"PYTHONPATH={SOURCE_INSIDE}", *FORKFIRST.split(), "status", "seen")
        told = real_systemd.run(*asking)
        assert shown in told
        real_systemd.run("systemctl", "stop", name)
