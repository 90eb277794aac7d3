"""What supervisors of workers cost, and what their reloads do to those who are being served.

python benchmarks/supervisors.py                 # writes the section of benchmarks/RESULTS.md
python benchmarks/supervisors.py --reloads 3     # fewer, for a look; add names of peers to choose

Two workers each, of a program that answers six octets. Under load a quiet second and a reload
take turns; a reload is over when every worker is another process. Idle, all of them at once for a
minute.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asking import Clients
from measure import describe_machine, put_section, write_table
from supervised import PATIENCE, WORKERS, Place, find_supervisors, list_workers, wait_replaced

if TYPE_CHECKING:
    from asking import Asked
    from supervised import Supervisor

CLIENTS = 8
QUIET_SECONDS = 1.0
AFTER_SECONDS = 0.3
SETTLE_SECONDS = 5.0
IDLE_SECONDS = 60.0
_HEADING = (
    *("", "requests", "failed", "slowest without, ms", "slowest with, ms", "more, ms"),
    *("one reload, ms", "parent, MiB", "wake-ups a minute", "CPU, idle"),
)


class Loaded(NamedTuple):
    """What came of reloads under load: counts, seconds a reload, bytes of the parent."""

    asked: Asked
    seconds: list[float]
    memory: int


class Idle(NamedTuple):
    """What a parent does while nothing happens, a minute."""

    wakeups: float
    cpu_seconds: float


def measure_under_load(one: Supervisor, place: Place, reloads: int) -> Loaded:
    """Start *one*, reload it so often under load, end it."""
    parent = start(one, place)
    try:
        clients = Clients(f"127.0.0.1:{place.port}", CLIENTS)
        time.sleep(QUIET_SECONDS)  # the first of everything
        seconds = []
        for _ in range(reloads):
            clients.begin("quiet")
            time.sleep(QUIET_SECONDS)
            clients.begin("reload")
            began = time.monotonic()
            before = list_workers(parent)
            one.reload(place, parent)
            wait_replaced(parent, before)
            seconds.append(time.monotonic() - began)
            time.sleep(AFTER_SECONDS)
        asked = clients.end()
        return Loaded(asked, seconds, read_memory(parent))
    finally:
        one.stop(place, parent)


def start(one: Supervisor, place: Place) -> int:
    """Start *one* and wait until all of its workers are there and somebody answers."""
    parent = one.start(place)
    deadline = time.monotonic() + PATIENCE
    while len(list_workers(parent)) < WORKERS or not is_served(place.port):
        if time.monotonic() > deadline:
            raise TimeoutError(one.name)
        time.sleep(0.05)
    return parent


def is_served(port: int) -> bool:
    """Tell whether somebody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def measure_idle(all_of_them: list[tuple[Supervisor, Place]], seconds: float) -> dict[str, Idle]:
    """Start all, leave all alone for *seconds*, and return what each parent did meanwhile."""
    parents: list[tuple[Supervisor, Place, int]] = []
    try:
        parents.extend((one, place, start(one, place)) for one, place in all_of_them)
        time.sleep(SETTLE_SECONDS)
        before = [read_work(parent) for _, _, parent in parents]
        time.sleep(seconds)
        after = [read_work(parent) for _, _, parent in parents]
    finally:
        for one, place, parent in parents:
            one.stop(place, parent)
    minutes = seconds / 60
    return {
        one.name: Idle((new[0] - old[0]) / minutes, (new[1] - old[1]) / minutes)
        for (one, _, _), old, new in zip(parents, before, after, strict=True)
    }


def read_work(pid: int) -> tuple[int, float]:
    """Return how often the threads of *pid* went to sleep, and the seconds they have worked."""
    sleeps, nanoseconds = 0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                sleeps += int(line.split()[1])
        nanoseconds += int((task / "schedstat").read_text().split()[0])
    return sleeps, nanoseconds / 1e9


def read_memory(pid: int) -> int:
    """Return the resident bytes of *pid*."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def choose_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def describe(name: str, loaded: Loaded, idle: Idle) -> list[str]:
    """Return one row of the table."""
    quiet = [window.slowest for window in loaded.asked.named("quiet")]
    with_reload = [window.slowest for window in loaded.asked.named("reload")]
    more = [b - a for a, b in zip(quiet, with_reload, strict=True)]
    return [
        name,
        f"{loaded.asked.answered:,}",
        str(len(loaded.asked.failures)),
        *(f"{statistics.median(one):.1f} ({max(one):.1f})" for one in (quiet, with_reload, more)),
        f"{statistics.median(loaded.seconds) * 1000:.0f}",
        f"{loaded.memory / 2**20:.1f}",
        f"{idle.wakeups:.0f}",
        f"{idle.cpu_seconds / 60:.2%}",
    ]


def main() -> None:
    """Measure each, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, metavar="SECONDS")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    found = find_supervisors()
    chosen = [one for one in found if all(name in one.name for name in arguments.names)]
    with tempfile.TemporaryDirectory(prefix="ffb-") as directory:

        def make_place(number: int, what: str) -> Place:
            place = Place(Path(directory) / f"{what}{number}", choose_port())
            place.directory.mkdir()
            return place

        loaded = []
        for number, one in enumerate(chosen):
            loaded.append(measure_under_load(one, make_place(number, "l"), arguments.reloads))
            print(
                one.name, len(loaded[-1].asked.failures), *loaded[-1].asked.failures[:2], flush=True
            )
        places = [(one, make_place(number, "i")) for number, one in enumerate(chosen)]
        idle = measure_idle(places, arguments.idle)
    rows = [
        describe(one.name, under_load, idle[one.name])
        for one, under_load in zip(chosen, loaded, strict=True)
    ]
    table = write_table(_HEADING, rows)
    print(table)
    if chosen == found:
        heading = f"## Supervisors of {WORKERS} workers, {describe_machine()}\n"
        text = (
            f"{heading}\n{CLIENTS} closed-loop clients, half of them with a new connection for "
            f"each request; {arguments.reloads} reloads each, and a quiet second before every one. "
            "Medians of the slowest request, the worst of all in parentheses. Idle: of the process "
            f"that keeps the workers, for {arguments.idle:g} s.\n"
        )
        put_section("supervisors", f"{text}\n{table}")


if __name__ == "__main__":
    main()
