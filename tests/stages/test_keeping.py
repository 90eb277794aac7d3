"""Listeners that a manager keeps: what it is sent, and what the next start makes of them."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from forkfirst.plan.keeping import is_reserved
from forkfirst.systemd import passing
from forkfirst.systemd.notify_receiver import Receiver, open_receiver
from support.hearing import each_message
from support.service_home import PATIENCE, talk

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from support.service_home import Home

SERVES = """
import asyncio, os
async def answer(reader, writer):
    await reader.readline()
    writer.write(b"served")
    await writer.drain()
    writer.close()
async def main(context):
    server = await asyncio.start_server(answer, sock=context.listener("web"))
    context.ready()
    await context.wait_stopping()
"""


class Manager:
    """What keeps descriptors by their names, and starts services with them, as systemd does."""

    def __init__(self, home: Home, receiver: Receiver) -> None:
        self._home = home
        self._receiver = receiver
        self.kept: dict[str, int] = {}
        self.removed: list[str] = []

    @contextmanager
    def running(self, *words: object, most: str = "4") -> Iterator[subprocess.Popen[bytes]]:
        """Run `forkfirst run` with *words* and all that is kept, until it is ready; kill it."""
        environment = passing.make_environment(self._home.environment, list(self.kept))
        environment |= {"NOTIFY_SOCKET": self._receiver.address, "FDSTORE": most}
        # Of a process that it has started itself, as it says: else it would not listen to it.
        self_said = ("sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$@"', "sh")
        command = passing.with_own_pid((*self_said, *self._home.words("run", *words)))
        # They have to be at 3, 4, …: passed by a shell that puts them there.
        moves = " ".join(f"{3 + at}<&{fd}" for at, fd in enumerate(self.kept.values()))
        with self._home.open(
            *("bash", "-c", f'exec "$@" {moves}', "bash", *command),
            env=environment,
            pass_fds=tuple(self.kept.values()),
        ) as running:
            try:
                self._hear_until_ready()
                yield running
            finally:
                running.kill()

    def _hear_until_ready(self) -> None:
        for message in each_message(self._receiver):
            name = message.fields.get("FDNAME", "")
            if message.fields.get("FDSTORE") == "1" and name not in self.kept:
                assert message.fields.get("FDPOLL") == "0" or not is_reserved(name)
                (self.kept[name],) = message.fds
                continue
            for fd in message.fds:
                os.close(fd)
            if message.fields.get("FDSTOREREMOVE") == "1":
                if name in self.kept:
                    os.close(self.kept.pop(name))
                self.removed.append(name)
            if message.fields.get("READY") == "1":
                return
        raise AssertionError(self.kept)

    def close(self) -> None:
        """Give up what is kept."""
        for fd in self.kept.values():
            os.close(fd)


@pytest.fixture
def manager(home: Home) -> Iterator[Manager]:
    home.program("app.py", SERVES)
    with open_receiver(str(home.directory / "notify")) as receiver:
        manager = Manager(home, receiver)
        yield manager
        manager.close()


@pytest.mark.parametrize("workers", [(), ("--workers", 1)])
def test_the_next_start_serves_who_came_to_the_one_that_died(
    manager: Manager, workers: tuple[object, ...]
) -> None:
    """Port 0 stays the port that it became, and whoever waits in the queue is not reset."""
    words = ("app.py", "--listen", "web=127.0.0.1:0", *workers)
    with manager.running(*words) as running:
        (fd,) = manager.kept.values()
        with socket.socket(fileno=os.dup(fd)) as kept:
            address = kept.getsockname()
        assert talk(address) == b"served"
        running.send_signal(signal.SIGSTOP)
    with socket.create_connection(address, PATIENCE) as waiting, manager.running(*words):
        waiting.sendall(b"\n")
        assert waiting.recv(100) == b"served"
    assert list(manager.kept) == ["forkfirst/web=127.0.0.1%3A0"]
    assert manager.removed == []


def test_what_is_declared_otherwise_is_given_up_before_it_is_bound(
    home: Home, manager: Manager
) -> None:
    """The manager has the address until it is told; then there is one of that name again."""
    place = home.directory / "socket"
    with manager.running("app.py", "--listen", f"web={place}") as running:
        assert talk(str(place)) == b"served"
        running.terminate()
        assert running.wait(PATIENCE) == 0
        assert place.exists(), "who comes now waits for the next start"
    (first,) = manager.kept
    with manager.running("app.py", "--listen", f"web={place}?mode=0600") as running:
        assert talk(str(place)) == b"served"
        assert manager.removed == [first]
    place.unlink()
    with manager.running("app.py", "--listen", f"web={place}?mode=0600") as running:
        assert talk(str(place)) == b"served", "not the socket whose path is gone"
    assert len(manager.removed) == 2


@pytest.mark.parametrize("most", ["", "0", "many"])
def test_nothing_is_sent_that_is_not_kept(manager: Manager, most: str) -> None:
    """To send it all the same is worth a warning to systemd, at every start."""
    with manager.running("app.py", "--listen", "web=127.0.0.1:0", most=most):
        assert manager.kept == {}


def test_a_program_cannot_take_our_names(home: Home, manager: Manager) -> None:
    """What it stores is its own, under names of its own."""
    home.program(
        "app.py",
        "def main(context):\n"
        "    for name in ('forkfirst/mine', 'mine'):\n"
        "        try:\n"
        "            context.store_state(name, b'')\n"
        "        except Exception as error:\n"
        "            context.status(str(error))\n"
        "    context.ready()\n"
        "    context.wait_stopping_blocking()\n",
    )
    with manager.running("app.py", "--listen", "web=127.0.0.1:0"):
        assert manager.removed == ["mine"], "what it had under that name before"
        assert sorted(manager.kept) == ["forkfirst/web=127.0.0.1%3A0", "mine"]
