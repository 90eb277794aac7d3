"""What a reload costs those who are being served: requests that fail, and the slowest one.

python benchmarks/reload.py                 # writes the section of benchmarks/RESULTS.md
python benchmarks/reload.py --reloads 5     # fewer, for a look

The program is examples/hello.py. Quiet seconds and reloads take turns under the same load, so that
what else the machine does falls on both; the difference is that of a reload and of the quiet second
just before it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

from asking import Clients
from measure import describe_machine, put_section, write_table

if TYPE_CHECKING:
    from asking import Asked

ROOT = Path(__file__).parent.parent
CLIENTS = 16
QUIET_SECONDS = 1.0
AFTER_SECONDS = 0.3
"""The old workers have left then: their clients ask without a pause."""
_HEADING = (
    *("listener", "runtime", "workers", "answered", "failed", "slowest without", "slowest with"),
    *("more", "p99 without", "p99 with", "one reload", "supervisor"),
)


class Case(NamedTuple):
    """What one case measured: the clients' counts, seconds a reload, bytes of the supervisor."""

    asked: Asked
    seconds: list[float]
    memory: int


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


def measure_case(kind: str, runtime: str, workers: int, reloads: int) -> Case:
    """Serve, and reload *reloads* times, each after a quiet second under the same load."""
    with tempfile.TemporaryDirectory(prefix="ffb-") as name:
        directory = Path(name)
        listen = "web=127.0.0.1:0" if kind == "tcp" else f"web=unix:{directory}/web"
        flags = ("--listen", listen, "--runtime", runtime, "--workers", workers)
        forkfirst(directory, "start", "examples/hello.py:main", *flags)
        try:
            status = json.loads(forkfirst(directory, "status", "hello", "--json"))
            address = status["listeners"][0][1].removeprefix("unix:")
            clients = Clients(address, CLIENTS)
            sleep(QUIET_SECONDS)
            seconds = []
            for _ in range(reloads):
                clients.begin("quiet")
                sleep(QUIET_SECONDS)
                clients.begin("reload")
                began = monotonic()
                forkfirst(directory, "reload", "hello")
                seconds.append(monotonic() - began)
                sleep(AFTER_SECONDS)
            asked = clients.end()
            status = json.loads(forkfirst(directory, "status", "hello", "--json"))
        finally:
            forkfirst(directory, "stop", "hello")
    return Case(asked, seconds, status["supervisor_rss_bytes"])


def describe(names: tuple[str, str, int], case: Case) -> list[str]:
    """Return one row of the table."""
    quiet, loaded = case.asked.named("quiet"), case.asked.named("reload")
    without, with_one = [one.slowest for one in quiet], [one.slowest for one in loaded]
    more = [b - a for a, b in zip(without, with_one, strict=True)]
    return [
        *map(str, names),
        f"{case.asked.answered:,}",
        str(len(case.asked.failures)),
        *(f"{statistics.median(one):.1f} ({max(one):.1f})" for one in (without, with_one, more)),
        *(f"{statistics.median(window.p99 for window in one):.1f}" for one in (quiet, loaded)),
        f"{statistics.median(case.seconds) * 1000:.0f}",
        f"{case.memory / 2**20:.1f} MiB",
    ]


def main() -> None:
    """Measure every case, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=20)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    failed = 0
    for kind in ("tcp", "unix"):
        for runtime in ("asyncio", "uvloop") if find_spec("uvloop") else ("asyncio",):
            for workers in (1, 4):
                case = measure_case(kind, runtime, workers, arguments.reloads)
                failed += len(case.asked.failures)
                rows.append(describe((kind, runtime, workers), case))
                print(*rows[-1], *case.asked.failures[:3], flush=True)
    text = (
        f"## Reloads under load, {describe_machine()}\n\n"
        f"The load before was {load:.1f}. {CLIENTS} closed-loop clients, "
        f"{arguments.reloads} reloads each, times in milliseconds. "
        "The slowest request: the median of the reloads, and the worst of all in parentheses; "
        '"more" is against the quiet second before each.\n\n'
    )
    put_section(
        f"reload {sys.version_info.major}.{sys.version_info.minor}",
        text + write_table(_HEADING, rows),
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
