"""The other tools that speak these protocols: each real one as the sender, or as the receiver."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from forkfirst.systemd.notify_receiver import open_receiver
from support.real_systemd import PROGRAMS_INSIDE, PYTHON_INSIDE, SOURCE_INSIDE, RealSystemd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkfirst.systemd.notify_receiver import Message, Receiver

pytestmark = pytest.mark.real

SERVICE = (PYTHON_INSIDE, f"{PROGRAMS_INSIDE}/systemd_service.py")
CLIENT = """
import socket, sys
family = {"4": socket.AF_INET, "6": socket.AF_INET6, "u": socket.AF_UNIX}[sys.argv[1]]
form = {"stream": socket.SOCK_STREAM, "packet": socket.SOCK_SEQPACKET, "gram": socket.SOCK_DGRAM}
host = "127.0.0.1" if family == socket.AF_INET else "::1"
address = sys.argv[3].replace("@", "\\0") if family == socket.AF_UNIX else (host, 8000)
with socket.socket(family, form[sys.argv[2]]) as connection:
    connection.settimeout(30)
    connection.connect(address)
    if form[sys.argv[2]] == socket.SOCK_STREAM and sys.argv[4:] == ["read"]:
        print(connection.makefile().read())
    else:
        connection.send(b"x")
"""


@contextmanager
def _activate(systemd: RealSystemd, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run systemd-socket-activate inside; it listens when the context begins."""
    environment = f"--setenv=PYTHONPATH={SOURCE_INSIDE}"
    command = systemd.enter("systemd-socket-activate", environment, *arguments)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        try:
            wanted = sum(each.startswith("--listen=") for each in arguments)
            lines = [running.stderr.readline() for _ in range(wanted)]
            assert all(line.startswith("Listening on") for line in lines), lines
            yield running
        finally:
            running.kill()


def _connect(systemd: RealSystemd, *arguments: str) -> str:
    return systemd.run(PYTHON_INSIDE, "-c", CLIENT, *arguments)


@pytest.mark.parametrize(
    ("listen", "client", "kind"),
    [
        (["--listen=127.0.0.1:8000"], ("4", "stream", ""), "tcp"),
        (["--listen=[::1]:8000"], ("6", "stream", ""), "tcp"),
        (["--listen=/run/a.sock"], ("u", "stream", "/run/a.sock"), "unix"),
        (["--listen=@abstract"], ("u", "stream", "@abstract"), "unix"),
        (["--datagram", "--listen=127.0.0.1:8000"], ("4", "gram", ""), "udp"),
        (["--datagram", "--listen=/run/b.sock"], ("u", "gram", "/run/b.sock"), "unixgram"),
        (["--seqpacket", "--listen=/run/c.sock"], ("u", "packet", "/run/c.sock"), "seqpacket"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_systemd_socket_activate_passes_each_kind(
    listen: list[str], client: tuple[str, ...], kind: str, real_systemd: RealSystemd
) -> None:
    """Its sockets are at 3, 4, …, addressed to the pid that it executes the program in."""
    with _activate(real_systemd, *listen, *SERVICE, "name") as running:
        _connect(real_systemd, *client)
        assert running.stdout is not None
        assert json.loads(running.stdout.readline()) == [[3, "unknown", kind]]


def test_systemd_socket_activate_passes_names_that_repeat(real_systemd: RealSystemd) -> None:
    """Two of one name stay two."""
    listen = [f"--listen=/run/{name}.sock" for name in ("n1", "n2", "n3")]
    arguments = ("--fdname=web:admin:web", *listen, *SERVICE, "name")
    with _activate(real_systemd, *arguments) as running:
        _connect(real_systemd, "u", "stream", "/run/n2.sock")
        assert running.stdout is not None
        told = json.loads(running.stdout.readline())
    assert told == [[3, "web", "unix"], [4, "admin", "unix"], [5, "web", "unix"]]


@pytest.mark.parametrize("style", [(), ("--inetd",)], ids=["fd 3", "inetd"])
def test_systemd_socket_activate_passes_one_connection(
    style: tuple[str, ...], real_systemd: RealSystemd
) -> None:
    """Each connection gets a process, which finds it on 3, or on its standard streams."""
    arguments = ("--accept", *style, "--listen=/run/accept.sock", *SERVICE, "accept")
    with _activate(real_systemd, *arguments):
        for _ in range(2):
            told = json.loads(_connect(real_systemd, "u", "stream", "/run/accept.sock", "read"))
            assert told["left"] == []


def _hear(receiver: Receiver, until: str) -> list[Message]:
    """Receive until one message has the field *until*."""
    heard: list[Message] = []
    waiting = select.poll()
    waiting.register(receiver.fileno(), select.POLLIN)
    while not heard or until not in heard[-1].fields:
        assert waiting.poll(30_000), heard
        message = receiver.receive()
        if message is not None:
            heard.append(message)
    return heard


def test_systemd_notify_is_heard_and_its_barrier_answered(real_systemd: RealSystemd) -> None:
    """A command that is a shell script says it is ready with this tool."""
    inside = "/run/heard"
    with open_receiver(f"/proc/{real_systemd.leader}/root{inside}") as receiver:
        command = real_systemd.enter(
            *(
                "env",
                f"NOTIFY_SOCKET={inside}",
                "systemd-notify",
                "--ready",
                "--status=from a script",
            )
        )
        with subprocess.Popen(command) as running:
            heard = _hear(receiver, "BARRIER")
            assert running.wait(30) == 0  # it waits for the barrier
    fields: dict[str, str] = {}
    for message in heard:
        assert message.pid > 0
        fields |= message.fields
    assert (fields["READY"], fields["STATUS"]) == ("1", "from a script")


def test_start_stop_daemon_returns_when_our_notifier_says_ready(
    real_systemd: RealSystemd,
) -> None:
    """Debian's own launcher understands readiness; without the word, it waits until its limit."""

    def start(does: str, seconds: int) -> str:
        python = (SERVICE[0], "--", SERVICE[1])
        common = ("--pidfile", "/run/ssd.pid", "--make-pidfile", "--background", "--notify-await")
        return real_systemd.run(
            *("env", f"PYTHONPATH={SOURCE_INSIDE}", "start-stop-daemon", "--start", "--quiet"),
            *(*common, "--notify-timeout", str(seconds), "--startas", *python, does),
            check=False,
        )

    try:
        assert start("ready_now", 30) == ""
        pid = real_systemd.path("/run/ssd.pid").read_text().strip()
        assert real_systemd.path(f"/proc/{pid}/comm").read_text().strip() == "python3"
    finally:
        real_systemd.run(
            *("start-stop-daemon", "--stop", "--retry=30", "--quiet", "--pidfile", "/run/ssd.pid")
        )
    assert "timed out waiting for a notification" in start("never_says_it", 1)


def test_s6_waits_for_our_line_feed(real_systemd: RealSystemd) -> None:
    """Its listener is there before the service starts, and hears U, which means "up and ready"."""
    if not real_systemd.run("sh", "-c", "command -v s6-supervise || true"):
        pytest.skip("not installed: s6")
    folder = real_systemd.path("/run/s6-service")
    folder.mkdir()
    try:
        (folder / "notification-fd").write_text("3\n")
        run = folder / "run"
        run.write_text(
            f"#!/bin/sh\nexport PYTHONPATH={SOURCE_INSIDE}\nexec {' '.join(SERVICE)} line_feed 3\n"
        )
        run.chmod(0o755)
        real_systemd.run("s6-mkfifodir", "-f", "/run/s6-service/event")
        supervise = ("s6-supervise", "/run/s6-service")
        listen = ("s6-ftrig-listen1", "-t", "30000", "/run/s6-service/event", "U")
        with subprocess.Popen(
            real_systemd.enter(*listen, *supervise), stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline().strip() == "U"
            state = real_systemd.run("s6-svstat", "-o", "up,ready", "/run/s6-service")
            real_systemd.run("s6-svc", "-dx", "/run/s6-service")
        assert state.split() == ["true", "true"]
    finally:
        shutil.rmtree(folder)
