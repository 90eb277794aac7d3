"""What the guard costs right before a fork, against what is allowed.

Each state is made in a fresh interpreter. The cost is the median of many looks that find the
process clean, or of the glance alone, without the grace, where there are threads. Noise only ever
adds: the best of the medians of five interpreters is told, and the worst beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

# name → what is made, and the bar in µs
STATES: dict[str, tuple[str, float]] = {
    "bare": ("", 30.0),
    "40 descriptors": ("keep = [os.open(os.devnull, os.O_RDONLY) for _ in range(37)]", 100.0),
    "4 threads, 40 descriptors: the glance": (
        """
keep = [os.open(os.devnull, os.O_RDONLY) for _ in range(37)]
for _ in range(4):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
look = glance.glance
""",
        100.0,
    ),
    "1,000 descriptors, 2,000,000 objects": (
        """
keep = [os.open(os.devnull, os.O_RDWR) for _ in range(997)]
objects = [[n] for n in range(2_000_000)]
""",
        1500.0,
    ),
    "1,000 sockets": ("keep = [socket.socket() for _ in range(997)]", 1500.0),
    "1,000 files that are read": (
        "keep = [os.open(sys.executable, os.O_RDONLY) for _ in range(997)]",
        1500.0,
    ),
    "1,000 files that are written": (
        """
file = tempfile.NamedTemporaryFile()
keep = [os.open(file.name, os.O_RDWR) for _ in range(997)]
""",
        1500.0,
    ),
    "1,000 descriptors up to number 8,000": (
        "keep = [fcntl.fcntl(0, fcntl.F_DUPFD, 8 * n) for n in range(1, 998)]",
        float("inf"),  # told, not promised: the kernel alone takes that long to list them
    ),
    "asyncio imported": ("import asyncio", 30.0),
    "a pid file locked by flock": (
        "import fcntl\nfile = tempfile.TemporaryFile()\nfcntl.flock(file, fcntl.LOCK_EX)",
        30.0,
    ),
}
_PROGRAM = """
import fcntl, json, os, socket, statistics, sys, tempfile, threading, time
from forkfirst.guard import glance, verdict
look = verdict.find_hazards
{prepare}
times = []
for _ in range({rounds}):
    start = time.perf_counter_ns()
    look()
    times.append(time.perf_counter_ns() - start)
print(json.dumps(statistics.median(times) / 1000))
sys.stdout.flush()
os._exit(0)
"""
_IMPORT = """
import json, os, sys, time
import forkfirst.errors
start = time.perf_counter_ns()
import forkfirst.guard.verdict
print(json.dumps((time.perf_counter_ns() - start) / 1000))
"""
_REFUSAL = """
import json, os, sys, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
from forkfirst.guard import verdict
start = time.perf_counter_ns()
verdict.find_hazards()
print(json.dumps((time.perf_counter_ns() - start) / 1000))
sys.stdout.flush()
os._exit(0)
"""
ROUNDS = 5


def main() -> int:
    """Print the table; 1 if a bar is broken."""
    broken = 0
    print(f"| {'state of the process':41} | best µs | worst µs | allowed µs |")
    print(f"| {'-' * 41} | ------: | -------: | ---------: |")
    for name, (prepare, bar) in STATES.items():
        rounds = 100 if "1,000" in name else 2000
        found = [_run(_PROGRAM.format(prepare=prepare, rounds=rounds)) for _ in range(ROUNDS)]
        broken += min(found) > bar
        print(f"| {name:41} | {min(found):7.1f} | {max(found):8.1f} | {bar:10.0f} |")
    for name, program in (
        ("loading it, once, on the way of a start", _IMPORT),
        ("refusing a thread, the grace included", _REFUSAL),
    ):
        found = [_run(program) for _ in range(ROUNDS)]
        print(f"| {name:41} | {min(found):7.0f} | {max(found):8.0f} | {'':10} |")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"\nPython {version}; {ROUNDS} interpreters a row")
    return 1 if broken else 0


def _run(program: str) -> float:
    # As a person runs it: with the compiled modules written, and read.
    environment = {name: text for name, text in os.environ.items() if name[:6] != "PYTHON"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
