"""What workers cost: the memory of eight, and the time until a killed one is replaced.

python benchmarks/workers.py            # writes the section of benchmarks/RESULTS.md

The program is large_app.py. Its memory is the proportional set size of every process of the
service, after requests and a full collection in each worker. Times begin with the signal that
kills a worker, sent from here; what a worker does from then on, when it has begun to be one, until
it is ready, is its own start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from measure import Figure, describe_machine, put_section, summarise, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
APP = f"{ROOT / 'benchmarks' / 'large_app.py'}:main"
LARGE = 280
"""MiB of objects that the program makes when it is imported."""
REQUESTS = 50_000
CLIENTS = 64
WORKERS = 8
ROUNDS = 3
STABLE_SECONDS = 5.5
"""A worker that lived so long is replaced at once; one that did not may have failed by itself."""

MOST_MEMORY = 1.12
MOST_PRELOADED_MS, MOST_PLAIN_MS = 5.0, 15.0


class Service:
    """The program as a service, while it is entered."""

    def __init__(self, *flags: object, large: int, reads: bool = False) -> None:
        self._flags = flags
        self._large = large
        self._reads = "1" if reads else ""

    def __enter__(self) -> Self:
        self._place = tempfile.TemporaryDirectory(prefix="ffb-")
        directory = Path(self._place.name)
        os.mkfifo(directory / "tell")
        self.environment = {
            **os.environ,
            "FORKFIRST_STATE_DIR": str(directory),
            "TELL": str(directory / "tell"),
            "LARGE_MIB": str(self._large),
            "LARGE_READ": self._reads,
            "PYTHONPATH": str(ROOT / "benchmarks" / "probe"),
            "BENCH_BEGAN": "1",
        }
        descriptor = os.open(directory / "tell", os.O_RDWR)
        self._told = os.fdopen(descriptor, "rb", buffering=0)
        self.address = str(directory / "web")
        listen = f"web=unix:{self.address}"
        self.run("start", APP, "--name", "app", "--listen", listen, *self._flags)
        # Not asked for its status: the supervisor would have to load what answers it.
        self.session = os.getsid(int((directory / "run" / "app.pid").read_text()))
        count = WORKERS if "--workers" in self._flags else 1
        self.workers = [self.hear("ready")[0] for _ in range(count)]
        return self

    def __exit__(self, *_: object) -> None:
        self.run("stop", "app")
        self._told.close()
        self._place.cleanup()

    def run(self, *words: object) -> str:
        """Run a command of forkfirst, which must succeed."""
        return subprocess.run(
            [sys.executable, "-m", "forkfirst", *map(str, words)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        ).stdout

    def hear(self, word: str) -> tuple[int, list[float]]:
        """Wait until a worker says *word*; return its pid and the times that it tells."""
        while True:
            said, pid, *times = self._told.readline().decode().split()
            if said == word:
                return int(pid), [float(one) for one in times]

    def measure_memory(self) -> float:
        """Return the memory of all its processes, in MiB, what is shared counted once."""
        return sum(map(read_memory, self._list_processes())) / 1024

    def _list_processes(self) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and os.getsid(int(entry.name)) == self.session:
                    yield int(entry.name)
            except ProcessLookupError:
                continue


def read_memory(pid: int) -> int:
    """Return the proportional set size of *pid* in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


async def ask(address: str, number: int) -> None:
    """Ask *number* times over each of the clients' connections, a new one every hundred times."""

    async def client() -> None:
        for _ in range(max(1, number // 100)):
            reader, writer = await asyncio.open_unix_connection(address)
            for _ in range(100):
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await reader.readuntil(b"hello\n")
            writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


def measure_memory(*flags: object, reads: bool = False) -> float:
    """Serve the requests, have every worker collect, and return the memory of all."""
    with Service(*flags, large=LARGE, reads=reads) as service:
        asyncio.run(ask(service.address, REQUESTS // CLIENTS))
        for pid in service.workers:
            os.kill(pid, signal.SIGUSR1)
        for _ in service.workers:
            service.hear("collected")
        return service.measure_memory()


class Replacement(NamedTuple):
    """What passes after a worker is killed, in milliseconds.

    Attributes:
        begun: Until another process has begun to be the new one.
        ready: Until that is ready.
    """

    begun: Figure
    ready: Figure


def measure_replacement(*flags: object, large: int) -> Replacement:
    """Kill workers that are known to be well, one after the other."""
    found: list[tuple[float, float]] = []
    with Service("--workers", WORKERS, *flags, large=large) as service:
        for _ in range(ROUNDS):
            time.sleep(STABLE_SECONDS)
            for pid in tuple(service.workers):
                time.sleep(0.2)  # the processors are idle again: one thing is measured at a time
                killed_at = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                fresh, times = service.hear("ready")
                found.append(((times[0] - killed_at) * 1000, (times[1] - killed_at) * 1000))
                service.workers.remove(pid)
                service.workers.append(fresh)
    begun, ready = zip(*found, strict=True)
    return Replacement(summarise(begun), summarise(ready))


def describe_bars(one: float, preloaded: float, small: dict[str, Replacement]) -> str:
    """Return the table of what was promised."""
    rows = [
        ("memory of 8 workers ÷ one process", MOST_MEMORY, preloaded / one, ".3f"),
        (
            "killed → another has begun, from the template, ms",
            MOST_PRELOADED_MS,
            small["preloaded"].begun.median,
            ".2f",
        ),
        (
            "killed → another has begun, plain, ms",
            MOST_PLAIN_MS,
            small["plain"].begun.median,
            ".2f",
        ),
    ]
    return write_table(
        ["bar", "at most", "measured", ""],
        [
            [what, f"{most:g}", f"{found:{spec}}", "kept" if found <= most else "**not kept**"]
            for what, most, found, spec in rows
        ],
    )


def main() -> None:
    """Measure all of it, print it, and keep it."""
    one = measure_memory()
    preloaded = measure_memory("--workers", WORKERS, "--preload=require")
    reading = measure_memory("--workers", WORKERS, "--preload=require", reads=True)
    plain = measure_memory("--workers", WORKERS)
    times = {
        (how, large): measure_replacement(*flags, large=large)
        for large in (0, LARGE)
        for how, flags in (("plain", ()), ("preloaded", ("--preload=require",)))
    }
    memory = write_table(
        [f"of the program with {LARGE} MiB of objects", "memory of all processes, MiB", "÷ one"],
        [
            [what, f"{found:.0f}", f"{found / one:.3f}"]
            for what, found in (
                ("one process", one),
                ("8 workers, `--preload`", preloaded),
                ("the same, and each request reads another object", reading),
                ("8 workers, plain", plain),
            )
        ],
    )
    replaced = write_table(
        ["worker", "objects", "killed → another has begun, ms", "killed → ready, ms"],
        [
            [how, f"{large} MiB" if large else "none", f"{each.begun:.2f}", f"{each.ready:.1f}"]
            for (how, large), each in times.items()
        ],
    )
    bars = describe_bars(one, preloaded, {how: times[how, 0] for how in ("plain", "preloaded")})
    text = (
        f"## Workers, {describe_machine()}\n\n{bars}\n"
        f"After {REQUESTS:,} requests and a full `gc.collect()` in each worker:\n\n{memory}\n"
        f"A worker killed by SIGKILL, {ROUNDS * WORKERS} times, medians with the middle half in "
        f"parentheses:\n\n{replaced}"
    )
    print(text)
    put_section(f"workers on {sys.version_info.major}.{sys.version_info.minor}", text)


if __name__ == "__main__":
    main()
