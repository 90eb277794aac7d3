"""What it costs a large program to start a daemon: `forkfirst.spawn` beside the other ways.

python benchmarks/spawn.py            # 4 GiB; writes benchmarks/RESULTS.md
python benchmarks/spawn.py --gib 1 --rounds 5

Each way is taken by a bare process and by one that has touched so much memory, both with three
threads, in turns. Measured is when the call returns, and when the new interpreter runs its first
line of Python. `forkfirst` is the call by which `spawn` begins, up to where it waits; its first
line is that of our own bootstrap.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from measure import Case, describe_machine, interleave, put_section, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from measure import Samples

FORKFIRST, POSIX_SPAWN, PREEXEC, FORK = (
    "`forkfirst.spawn`",
    "`os.posix_spawn`",
    "`subprocess`, `preexec_fn`",
    "`os.fork`, `os.execv`",
)
_CALL_BAR_MS, _RATIO_BAR = 1.0, 1.1

# Waits for the name of a way on stdin, takes it, and prints both times in milliseconds. The first
# line of the new interpreter writes the clock that all processes share to a pipe it inherits.
_PROGRAM = r"""
import fcntl, json, os, subprocess, sys, threading, time
gib = float(sys.argv[1])
memory = bytearray(int(gib * 2**30))
memory[::4096] = b"x" * len(range(0, len(memory), 4096))  # each page of it
go = threading.Event()
for _ in range(3):
    threading.Thread(target=go.wait, daemon=True).start()

import forkfirst
from forkfirst.inside import spawning
from forkfirst.stages.fresh import commission, interpreter

ordered = spawning.make_order(forkfirst.Service(program="nothing:main", name="bench"))
FIRST = "import os, time; os.write({fd}, time.monotonic_ns().to_bytes(8, 'little'))"
interpreter._CODE = FIRST.format(fd="int(os.environ['CLOCK'])")

def take(way, send):
    words = [sys.executable, "-I", "-S", "-c", FIRST.format(fd=send)]
    if way == "preexec":
        return subprocess.Popen(words, preexec_fn=os.setsid, pass_fds=[send]).wait
    if way == "spawn":
        pid = os.posix_spawn(words[0], words, os.environ, setsid=True)
    elif way == "fork":
        pid = os.fork()
        if not pid:
            os.execv(words[0], words)
    else:
        os.environ["CLOCK"] = str(send)
        begun = commission.begin(ordered)
        def wait():
            os.waitid(os.P_PID, begun._launcher, os.WEXITED | os.WNOWAIT)
            begun.close()
        return wait
    return lambda: os.waitpid(pid, 0)

print("ready", flush=True)
for line in sys.stdin:
    receive, low = os.pipe()
    send = fcntl.fcntl(low, fcntl.F_DUPFD, 100)  # inherited, and where nobody else puts anything
    os.close(low)
    began = time.monotonic_ns()
    wait = take(line.strip(), send)
    returned = time.monotonic_ns()
    wait()
    first = int.from_bytes(os.read(receive, 8), "little")
    os.close(receive); os.close(send)
    figures = {"call": (returned - began) / 1e6, "first": (first - began) / 1e6}
    print(json.dumps(figures), flush=True)
"""
_WAYS = {FORKFIRST: "forkfirst", POSIX_SPAWN: "spawn", PREEXEC: "preexec", FORK: "fork"}
_SIZES = ("bare", "large")


class Program:
    """A process that takes a way whenever it is told to."""

    def __init__(self, gib: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(gib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def take(self, way: str) -> dict[str, float]:
        """Start an interpreter by *way*, and return both times."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe, as was asked for
        self._process.stdin.write(f"{way}\n")
        self._process.stdin.flush()
        figures: dict[str, float] = json.loads(self._read())
        return figures

    def end(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - as above
        line: str = self._process.stdout.readline()
        if not line:
            sys.exit("the measured program ended: is there enough memory?")
        return line


def measure(gib: float, rounds: int, ways: Iterable[str] = tuple(_WAYS)) -> Samples:
    """Take each of *ways* from both processes, round by round."""
    programs = {"bare": Program(0.0), "large": Program(gib)}

    def make(size: str, way: str) -> Case:
        return Case(f"{size} {way}", lambda: programs[size].take(_WAYS[way]))

    try:
        return interleave([make(size, way) for way in ways for size in _SIZES], rounds)
    finally:
        for program in programs.values():
            program.end()


def write(promised: Samples, samples: Samples, gib: float, rounds: int) -> str:
    """Return the section: the two promises, and all that was measured."""
    call = promised.figure(f"large {FORKFIRST}", "call")
    ratio = promised.ratio(f"large {FORKFIRST}", f"bare {FORKFIRST}", "first")
    promises = [
        ("the call returns, ms", f"≤ {_CALL_BAR_MS:g}", f"{call:.2f}", call.median <= _CALL_BAR_MS),
        (
            "until the first line, × the bare process",
            f"≤ {_RATIO_BAR:g}",
            f"{ratio:.2f}",
            ratio.median <= _RATIO_BAR,
        ),
    ]
    rows = [
        [
            way,
            *(
                format(samples.figure(f"{size} {way}", figure), ".2f")
                for figure in ("call", "first")
                for size in _SIZES
            ),
        ]
        for way in _WAYS
    ]
    size = f"{gib:g} GiB"
    return "\n".join(
        [
            f"## A daemon from a program of {size}, on {describe_machine()}\n",
            f"Medians of {rounds} interleaved rounds, with the middle half in parentheses; ms.",
            "The promises took twice as many, with no fork between them.\n",
            write_table(
                ["from the large one", "bar", "measured", ""],
                [[*words, "kept" if kept else "**missed**"] for *words, kept in promises],
            ),
            write_table(
                [
                    "way",
                    "call returns, bare",
                    f"call returns, {size}",
                    "first line, bare",
                    f"first line, {size}",
                ],
                rows,
            ),
        ]
    )


def main() -> None:
    """Measure, print, and keep it in the results."""
    parser = argparse.ArgumentParser(description="measure what a spawn costs a large program")
    parser.add_argument("--gib", type=float, default=4.0, help="memory of the large one (4)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of which to tell (15)")
    options = parser.parse_args()
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE") / 2**30
    if free < options.gib + 1:
        print(f"spawn: not measured: {options.gib:g} GiB and some are needed, {free:.1f} are free")
        return
    # The promise in processes that were never forked: a fork makes each page of the large one fault
    # once more, and whoever comes next pays for it.
    promised = measure(options.gib, 2 * options.rounds, (FORKFIRST, POSIX_SPAWN))
    samples = measure(options.gib, options.rounds)
    text = write(promised, samples, options.gib, options.rounds)
    print(text)
    put_section(f"spawn on {sys.version_info.major}.{sys.version_info.minor}", text)


if __name__ == "__main__":
    main()
