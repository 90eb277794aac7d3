"""The main job, shown from end to end: `make run`.

Starts the demonstration service in the background, talks to it, reloads it under load without
losing a request, looks at it, lets a broken program fail, stops everything. Prints each command
before it runs it. Takes a few seconds at most, and leaves no process, no file and no open port.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent
HELLO = "examples/hello.py:main"
SECONDS_PER_COMMAND = 30
CLIENTS = 4


def run(*words: str, expect: int = 0) -> str:
    """Run one `forkfirst` command, show it and what it said; return its output."""
    print(f"\n$ forkfirst {shlex.join(words)}", flush=True)
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "forkfirst", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        timeout=SECONDS_PER_COMMAND,
        check=False,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode != expect:
        sys.exit(f"the demonstration expected exit status {expect}, not {done.returncode}")
    if expect:
        print(f"(exit status {done.returncode})")
    return done.stdout


def ask(port: int) -> bytes:
    """Send one request over a connection of its own; return the answer, b"" if there was none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(1024)
    except OSError:
        return b""


class Load:
    """Clients that ask without pause, and count what they get."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._counts = [[0, 0] for _ in range(CLIENTS)]
        self._clients = [
            threading.Thread(target=self._ask, args=(counts,)) for counts in self._counts
        ]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def describe(self) -> str:
        """Say how many requests were answered; end the demonstration if one was not."""
        answered, failed = (sum(column) for column in zip(*self._counts, strict=True))
        if failed:
            sys.exit(f"{failed} requests were refused or cut, beside {answered} answered")
        return f"{CLIENTS} clients meanwhile: {answered} requests answered, none refused or cut"

    def _ask(self, counts: list[int]) -> None:
        while not self._over.is_set():
            if ask(self._port):
                counts[0] += 1
            else:
                counts[1] += 1


def choose_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def demonstrate(port: int) -> None:
    """Show the whole life of one service."""
    run("start", HELLO, "--listen", f"web=127.0.0.1:{port}", "--workers", "2")
    print(f"\nWhat the port answers now: {ask(port).splitlines()[-1].decode()}")
    run("status", "hello")
    run("start", HELLO, "--listen", f"web=127.0.0.1:{port}", expect=75)
    with Load(port) as load:
        run("reload", "hello")
        run("reload", "hello")
    print(load.describe())
    run("ps")
    run("start", "examples/broken.py:main", expect=70)
    run("stop", "hello")
    run("status", "hello", expect=3)
    print(f"\nNothing answers on port {port} any more: {ask(port) == b''}")


def main() -> None:
    """Demonstrate in a directory of its own, and stop the service whatever happens."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="forkfirst-demo-") as directory:
        os.environ["FORKFIRST_STATE_DIR"] = directory
        try:
            demonstrate(choose_port())
        finally:
            subprocess.run(
                [sys.executable, "-m", "forkfirst", "stop", "hello"],
                cwd=ROOT,
                capture_output=True,
                timeout=SECONDS_PER_COMMAND,
                check=False,
            )
    print(f"\nAll of it took {time.monotonic() - began:.1f} s, and nothing of it is left.")


if __name__ == "__main__":
    main()
