"""What a reload costs those who are being served: requests that fail, and the slowest one.

python benchmarks/reload.py                 # writes the section of benchmarks/RESULTS.md
python benchmarks/reload.py --reloads 5     # fewer, for a look

The program is examples/hello.py. The clients are closed-loop, in a process of their own: each asks
again as soon as it has its answer, one half over a new connection each time, the other over one
that it keeps for as long as the server lets it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from measure import describe_machine, put_section

ROOT = Path(__file__).parent.parent
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLIENTS = 16
QUIET_SECONDS = 3.0


class Clients:
    """The clients' process, while it runs."""

    def __init__(self, address: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--client", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> dict[str, Any]:
        """Let every client finish its request, and return what they counted."""
        out, _ = self._process.communicate(timeout=60)
        counted: dict[str, Any] = json.loads(out)
        return counted


async def ask_until_told(address: str) -> dict[str, Any]:
    """Ask until standard input ends; return the counts."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, over.set)
    seconds: list[float] = []
    failures: list[str] = []

    async def client(*, keeps: bool) -> None:
        while not over.is_set():
            writer = None
            try:
                reader, writer = await connect(address)
                more = True
                while more and not over.is_set():
                    began = monotonic()
                    writer.write(REQUEST)
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(6)
                    seconds.append(monotonic() - began)
                    more = keeps and b"Connection: close" not in head
            except (OSError, asyncio.IncompleteReadError) as error:
                failures.append(repr(error))
            finally:
                if writer is not None:
                    writer.close()

    await asyncio.gather(*(client(keeps=number % 2 == 0) for number in range(CLIENTS)))
    seconds.sort()
    return {
        "answered": len(seconds),
        "failed": len(failures),
        "failures": failures[:3],
        "slowest": seconds[-1] * 1000,
        "p99": seconds[len(seconds) * 99 // 100] * 1000,
    }


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to HOST:PORT or to a path."""
    if address.startswith("/"):
        return await asyncio.open_unix_connection(address)
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def forkfirst(directory: Path, *words: object) -> str:
    """Run one command, which must succeed."""
    environment = {**os.environ, "FORKFIRST_STATE_DIR": str(directory)}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "forkfirst", *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def measure_case(kind: str, runtime: str, workers: int, reloads: int) -> dict[str, Any]:
    """Serve quietly, then reload *reloads* times, under the same load."""
    with tempfile.TemporaryDirectory(prefix="ffb-") as name:
        directory = Path(name)
        listen = "web=127.0.0.1:0" if kind == "tcp" else f"web=unix:{directory}/web"
        flags = ("--listen", listen, "--runtime", runtime, "--workers", workers)
        forkfirst(directory, "start", "examples/hello.py:main", *flags)
        try:
            status = json.loads(forkfirst(directory, "status", "hello", "--json"))
            address = status["listeners"][0][1].removeprefix("unix:")
            clients = Clients(address)
            began = monotonic()
            while monotonic() - began < QUIET_SECONDS:
                forkfirst(directory, "status", "hello")  # as much work beside it as a reload's own
            quiet = clients.end()
            clients = Clients(address)
            began = monotonic()
            for _ in range(reloads):
                forkfirst(directory, "reload", "hello")
            took = (monotonic() - began) / reloads
            loaded = clients.end()
            status = json.loads(forkfirst(directory, "status", "hello", "--json"))
        finally:
            forkfirst(directory, "stop", "hello")
    memory = status["supervisor_rss_bytes"] / 2**20
    return {"quiet": quiet, "loaded": loaded, "took": took * 1000, "memory": memory}


def main() -> None:
    """Measure every case, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--reloads", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.client:
        print(json.dumps(asyncio.run(ask_until_told(arguments.client))))
        return
    columns = ["listener", "runtime", "workers", "answered", "failed"]
    columns += ["slowest without", "slowest with", "p99 without", "p99 with"]
    columns += ["one reload", "supervisor"]
    rows = [
        f"## Reloads under load, {describe_machine()}\n",
        f"{CLIENTS} closed-loop clients, {arguments.reloads} reloads each, times in milliseconds.",
        "With as many workers as there are processors or more, the slowest request waits for one:",
        "the new workers are importing on all of them.\n",
        f"| {' | '.join(columns)} |",
        f"| --- | --- |{' ---: |' * (len(columns) - 2)}",
    ]
    failed = 0
    for kind in ("tcp", "unix"):
        for runtime in ("asyncio", "uvloop") if find_spec("uvloop") else ("asyncio",):
            for workers in (1, 4):
                found = measure_case(kind, runtime, workers, arguments.reloads)
                quiet, loaded = found["quiet"], found["loaded"]
                failed += loaded["failed"]
                rows.append(
                    f"| {kind} | {runtime} | {workers} | {loaded['answered']} "
                    f"| {loaded['failed']} | {quiet['slowest']:.1f} | {loaded['slowest']:.1f} "
                    f"| {quiet['p99']:.1f} | {loaded['p99']:.1f} | {found['took']:.0f} "
                    f"| {found['memory']:.1f} MiB |"
                )
                print(rows[-1], *loaded["failures"], flush=True)
    text = "\n".join(rows)
    put_section(f"reload {sys.version_info.major}.{sys.version_info.minor}", text)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
