"""Starts a server in any of the ways there are, and times it as a person would feel it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_DEADLINE = 30.0
"""Seconds after which a start counts as failed."""

_BETWEEN_ATTEMPTS = 0.0002
"""Seconds between two connection attempts: the resolution of what is measured."""


class Way(NamedTuple):
    """One way to start the server.

    Attributes:
        name: What the table calls it.
        command: Makes the command for a port and an empty directory.
        foreground: The command is the server itself, and does not come back.
        stop: Makes the command that ends it; without one the server gets SIGTERM.
        census: The process that forks is a Python, so its state then can be looked at.
    """

    name: str
    command: Callable[[int, Path], Sequence[str]]
    foreground: bool = False
    stop: Callable[[int, Path], Sequence[str]] | None = None
    census: bool = False


class StartFailedError(Exception):
    """The server never answered; the text is what it said."""


def time_start(
    way: Way, directory: Path, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Start a server by *way*, time it, end it.

    Returns:
        `ready_ms`: until the prompt was back (unless in the foreground) and a request was answered.
        `gap_ms`: from the prompt to the first answer; negative if the answer was first.
        `refused`: 1 if a client that came when the prompt came back was refused, else 0.
        `rss_kib`: resident memory of the answering process after its second answer.

    Raises:
        StartFailedError: No answer within the deadline, or the launcher failed.
    """
    port = _choose_port()
    said = directory / "said"
    with said.open("wb") as output:
        began = time.perf_counter()
        launcher = subprocess.Popen(
            way.command(port, directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "BENCH_PORT": str(port), **(environment or {})},
        )
    server = 0
    try:
        answered, exited, refused = _watch(launcher, port, began, foreground=way.foreground)
        if launcher.returncode or not answered:
            message = f"{way.name}: status {launcher.returncode}: {said.read_text()[-2000:]}"
            raise StartFailedError(message)
        server = _ask(port)
        return {
            "ready_ms": 1000 * (max(answered, exited) - began),
            "gap_ms": 0.0 if way.foreground else 1000 * (answered - exited),
            "refused": float(refused),
            "rss_kib": _read_resident(server),
        }
    finally:
        _end(way, launcher, server, port, directory)


def _watch(
    launcher: subprocess.Popen[bytes], port: int, began: float, *, foreground: bool
) -> tuple[float, float, bool]:
    """Wait for the answer and for the launcher's exit; return both times, and if it refused.

    Not `Popen.poll` and a nap: the launcher's end is waited for on its pidfd.
    """
    answered = exited = 0.0
    refused = False
    asking: socket.socket | None = None
    gone = os.pidfd_open(launcher.pid)
    try:
        while not answered or not (exited or foreground):
            if time.perf_counter() - began > _DEADLINE or launcher.returncode:
                return 0.0, exited, refused
            if not answered and asking is None:
                asking = _try_to_ask(port)
            watched: list[int | socket.socket] = [] if exited else [gone]
            watched += [asking] if asking is not None else []
            ready, _, _ = select.select(watched, [], [], 0.1 if answered else _BETWEEN_ATTEMPTS)
            now = time.perf_counter()
            if asking is not None and asking in ready:
                if asking.recv(32):
                    answered = now
                asking.close()
                asking = None
            if gone in ready:
                exited = now
                launcher.wait()
                if not answered and asking is None:
                    asking = _try_to_ask(port)
                    refused = asking is None
        return answered, exited, refused
    finally:
        os.close(gone)
        if asking is not None:
            asking.close()


def _try_to_ask(port: int) -> socket.socket | None:
    asking = socket.socket()
    try:
        asking.connect(("127.0.0.1", port))
        asking.sendall(b"who\n")
    except ConnectionError:
        asking.close()
        return None
    return asking


def _ask(port: int) -> int:
    """Return the pid of the process that answers."""
    asking = _try_to_ask(port)
    if asking is None:
        return 0
    with asking:
        asking.settimeout(5)
        return int(asking.recv(32))


def _choose_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def _read_resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    return 0.0


def _end(
    way: Way, launcher: subprocess.Popen[bytes], server: int, port: int, directory: Path
) -> None:
    """Leave no process behind, however far the start had come."""
    handle = -1
    if server:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(server)
    if way.stop is not None:
        subprocess.run(way.stop(port, directory), capture_output=True, check=False, timeout=30)
    elif handle >= 0:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    if launcher.poll() is None:
        if not handle >= 0:
            launcher.kill()
        launcher.wait(timeout=10)
    if handle >= 0:
        if not select.select([handle], [], [], 10)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
