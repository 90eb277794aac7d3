"""`forkfirst run` under other tools that open sockets or wait for readiness, the genuine ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.real_systemd import PROGRAMS_INSIDE, PYTHON_INSIDE, SOURCE_INSIDE, RealSystemd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

RUN = (PYTHON_INSIDE, "-m", "forkfirst", "run")
TARGET = f"{PROGRAMS_INSIDE}/managed.py"
CLIENT = """
import socket, sys
kind, form, address = sys.argv[1:]
family = {"4": socket.AF_INET, "6": socket.AF_INET6, "u": socket.AF_UNIX}[kind]
form = {"stream": socket.SOCK_STREAM, "packet": socket.SOCK_SEQPACKET, "gram": socket.SOCK_DGRAM}[form]
host = "127.0.0.1" if kind == "4" else "::1"
to = address.replace("@", "\\0") if kind == "u" else (host, int(address))
with socket.socket(family, form) as connection:
    connection.settimeout(30)
    connection.connect(to)
    connection.send(b"\\n")
    if form == socket.SOCK_STREAM:
        print(connection.makefile().read())
"""  # noqa: E501 - a program


@contextmanager
def _activate(systemd: RealSystemd, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run systemd-socket-activate inside; it listens when the context begins."""
    environment = f"--setenv=PYTHONPATH={SOURCE_INSIDE}"
    command = systemd.enter("systemd-socket-activate", environment, *arguments)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
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
    ("listen", "client", "declared"),
    [
        ("127.0.0.1:8200", ("4", "stream", "8200"), "web=127.0.0.1:9"),
        ("[::1]:8200", ("6", "stream", "8200"), "web=[::1]:9"),
        ("/run/sa.sock", ("u", "stream", "/run/sa.sock"), "web=unix:/run/another.sock"),
        ("@sa", ("u", "stream", "@sa"), "web=unix:@another"),
        ("127.0.0.1:8200", ("4", "stream", "8200"), "web=systemd:unknown"),
        ("127.0.0.1:8200", ("4", "stream", "8200"), "web=fd:3"),
    ],
)
def test_a_stream_that_was_opened_for_it_is_served(
    real_systemd: RealSystemd, listen: str, client: tuple[str, ...], declared: str
) -> None:
    """No change to the command: what is declared to be bound is adopted, by its kind."""
    arguments = (f"--listen={listen}", *RUN, f"{TARGET}:serve", "--listen", declared)
    with _activate(real_systemd, *arguments):
        told = json.loads(_connect(real_systemd, *client))
    assert (told["name"], told["left"]) == ("web", [])


@pytest.mark.parametrize(
    ("flag", "listen", "client", "declared", "found"),
    [
        ("--datagram", "127.0.0.1:8201", ("4", "gram", "8201"), "x=udp:9", "AF_INET SOCK_DGRAM"),
        (
            *("--datagram", "/run/sb.sock", ("u", "gram", "/run/sb.sock")),
            *("x=unixgram:/run/another.sock", "AF_UNIX SOCK_DGRAM"),
        ),
        (
            *("--seqpacket", "/run/sc.sock", ("u", "packet", "/run/sc.sock")),
            *("x=seqpacket:/run/another.sock", "AF_UNIX SOCK_SEQPACKET"),
        ),
    ],
)
def test_datagrams_and_packets_reach_the_program(  # noqa: PLR0913, PLR0917 - a table
    real_systemd: RealSystemd,
    flag: str,
    listen: str,
    client: tuple[str, ...],
    declared: str,
    found: str,
) -> None:
    """Asked over a second listener what the first has become."""
    command = (*RUN, f"{TARGET}:tell", "--listen", declared)
    with _activate(real_systemd, flag, f"--listen={listen}", *command) as running:
        _connect(real_systemd, *client)
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("{"):
                assert json.loads(line) == {"x": [found]}
                break
        else:
            pytest.fail("it told nothing")


def test_names_that_repeat_stay_apart(real_systemd: RealSystemd) -> None:
    """Two of one name, both served under it; the third, undeclared, under its own."""
    listen = [f"--listen=/run/sd{number}.sock" for number in range(3)]
    command = (*RUN, f"{TARGET}:serve", "--listen", "web=unix:/run/another.sock")
    with _activate(real_systemd, "--fdname=web:admin:web", *listen, *command):
        names = [
            json.loads(_connect(real_systemd, "u", "stream", f"/run/sd{number}.sock"))["name"]
            for number in range(3)
        ]
    assert names == ["web", "admin", "web"]


@pytest.mark.parametrize("style", [(), ("--inetd",)], ids=["fd 3", "inetd"])
def test_each_connection_gets_a_process(real_systemd: RealSystemd, style: tuple[str, ...]) -> None:
    """What the program prints is not part of the conversation."""
    command = (*RUN, "--inetd", f"{TARGET}:converse")
    with _activate(real_systemd, "--accept", *style, "--listen=/run/se.sock", *command):
        told = [json.loads(_connect(real_systemd, "u", "stream", "/run/se.sock")) for _ in range(2)]
    assert [one["name"] for one in told] == ["connection"] * 2
    assert told[0]["pid"] != told[1]["pid"]


def test_start_stop_daemon_returns_when_the_service_is_ready(real_systemd: RealSystemd) -> None:
    """`--notify-await` is Debian's own launcher that understands sd_notify."""
    common = ("--pidfile", "/run/ff-ssd.pid", "--make-pidfile", "--background", "--notify-await")
    listen = ("--listen", "127.0.0.1:8202")
    words = ("--startas", PYTHON_INSIDE, "--", *RUN[1:], f"{TARGET}:serve", *listen)
    started = ("start-stop-daemon", "--start", "--quiet", *common, "--notify-timeout", "30")
    environment = ("env", f"PYTHONPATH={SOURCE_INSIDE}")
    try:
        assert real_systemd.run(*environment, *started, *words) == ""
        told = json.loads(_connect(real_systemd, "4", "stream", "8202"))
        assert str(told["pid"]) == real_systemd.path("/run/ff-ssd.pid").read_text().strip()
    finally:
        stopped = ("--stop", "--retry=30", "--quiet", "--pidfile", "/run/ff-ssd.pid")
        real_systemd.run("start-stop-daemon", *stopped)


def test_s6_hears_that_the_service_is_up_and_ready(real_systemd: RealSystemd) -> None:
    """By a newline on the descriptor that its file notification-fd names; its finish is a stop."""
    if not real_systemd.run("sh", "-c", "command -v s6-supervise || true"):
        pytest.skip("not installed: s6")
    folder = real_systemd.path("/run/ff-s6")
    folder.mkdir()
    try:
        (folder / "notification-fd").write_text("3\n")
        run = folder / "run"
        run.write_text(
            f"#!/bin/sh\nexport PYTHONPATH={SOURCE_INSIDE}\n"
            f"exec {' '.join(RUN)} --notify-fd 3 {TARGET}:serve\n"
        )
        run.chmod(0o755)
        real_systemd.run("s6-mkfifodir", "-f", "/run/ff-s6/event")
        listen = ("s6-ftrig-listen1", "-t", "30000", "/run/ff-s6/event", "U")
        with subprocess.Popen(
            real_systemd.enter(*listen, "s6-supervise", "/run/ff-s6"),
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline().strip() == "U"
            state = real_systemd.run("s6-svstat", "-o", "up,ready", "/run/ff-s6")
            real_systemd.run("s6-svc", "-dx", "/run/ff-s6")
        assert state.split() == ["true", "true"]
    finally:
        shutil.rmtree(folder)
