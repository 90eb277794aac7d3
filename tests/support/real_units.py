"""Units that run `forkfirst` under a real systemd, and clients inside of it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from support.real_systemd import PROGRAMS_INSIDE, PYTHON_INSIDE, RealSystemd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_COUNT = itertools.count()
FORKFIRST = f"{PYTHON_INSIDE} -m forkfirst"
TARGET = f"{PROGRAMS_INSIDE}/managed.py"
ASK = """
import socket, sys
address = sys.argv[1] if sys.argv[1].startswith("/") else ("127.0.0.1", int(sys.argv[1]))
family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
with socket.socket(family) as connection:
    connection.settimeout(30)
    connection.connect(address)
    connection.sendall(sys.argv[2].encode() + b"\\n")
    print(connection.makefile().read())
"""


def ask(systemd: RealSystemd, address: str, wish: str = "") -> dict[str, Any]:
    """Connect, say *wish*, and return what the service tells of itself."""
    told: dict[str, Any] = json.loads(systemd.run(PYTHON_INSIDE, "-c", ASK, address, wish))
    return told


def start(systemd: RealSystemd, name: str) -> None:
    """Start the unit *name*, or show what it said."""
    systemd.run("systemctl", "start", name, check=False)
    state = systemd.show(name, "ActiveState")
    assert state in ("active", "inactive"), "\n".join(systemd.read_journal(name))


LOAD = """
import socket, sys, threading
path = sys.argv[1] if sys.argv[1].startswith("/") else ""
family = socket.AF_UNIX if path else socket.AF_INET
stop = threading.Event()
counts = {"ok": 0, "failed": []}
def load():
    while not stop.is_set():
        try:
            with socket.socket(family) as connection:
                connection.settimeout(30)
                connection.connect(path or ("127.0.0.1", int(sys.argv[1])))
                connection.sendall(b"\\n")
                text = connection.makefile().read()
            counts["ok" if text else "failed"] += 1 if text else ["empty"]
        except OSError as error:
            counts["failed"].append(repr(error))
threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads: thread.start()
sys.stdin.readline()
stop.set()
for thread in threads: thread.join()
print(counts["ok"], counts["failed"])
"""
"""Eight clients that connect to a port or path without pause, until they are told to end."""


@contextmanager
def installing(real_systemd: RealSystemd) -> Iterator[Callable[..., str]]:
    """Install a service that runs `forkfirst`, and sockets for it; all is stopped at the end."""
    made: list[str] = []

    def unit(  # noqa: PLR0913 - what a unit says
        words: str,
        settings: str = "",
        *,
        kind: str = "notify",
        command: str = "run",
        sockets: tuple[str, ...] = (),
        template: str = "",
    ) -> str:
        name = f"ff{next(_COUNT)}-{os.getpid()}"
        service = f"[Service]\nType={kind}\nExecStart={FORKFIRST} {command} {words}\n{settings}"
        units = {f"{name}{template}_service".replace("-", "_"): service}
        for number, text in enumerate(sockets):
            owner = "" if template else f"Service={name}.service\n"
            stem = name if template else f"{name}-{number}"
            units[f"{stem.replace('-', '_')}_socket"] = f"[Socket]\n{owner}{text}\n"
            made.append(f"{stem}.socket")
        real_systemd.install(**units)
        for each in made[-len(sockets) :] if sockets else ():
            real_systemd.run("systemctl", "start", each)
        made.append(f"{name}{template}.service")
        return made[-1]

    try:
        yield unit
    finally:
        for name in made:
            real_systemd.run("systemctl", "stop", name.replace("@", "@*"), check=False)
            real_systemd.run("systemctl", "reset-failed", name, check=False)


@contextmanager
def loading(systemd: RealSystemd, port: int | str) -> Iterator[list[str]]:
    """Have clients ask at *port*, or a path, meanwhile; at the end give "served", "[failures]"."""
    told: list[str] = []
    command = systemd.enter(PYTHON_INSIDE, "-c", LOAD, str(port))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as clients:
        try:
            yield told
            out, _ = clients.communicate("\n", timeout=60)
        finally:
            clients.kill()
    told.extend(out.strip().split(maxsplit=1))
