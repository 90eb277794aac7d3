"""What a start costs: forkfirst beside the bare program and beside every peer there is.

make bench                      # writes benchmarks/RESULTS.md
make bench PYTHON=python3.12    # the section of another Python
python benchmarks/start.py --rounds 5 --only forkfirst
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import ROUNDS, Case, Samples, describe_machine, interleave, put_section, write_table
from starting import StartFailedError, Way, time_start
from ways import (
    BARE,
    FORKFIRST,
    OURS,
    PEERS,
    clean_up_pm2,
    find_ways,
    prepare_pm2,
    start_with_forkfirst,
    stop_with_forkfirst,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from measure import Figure

_LIMITS = {1_024: "0004000000000000", 1_073_741_822: "feffff3f00000000"}
"""The limits of descriptors that are pretended, and each as it lies in a struct rlimit."""

_HOW = """\
Medians of {} interleaved rounds, with the middle half of them in parentheses; every ratio is to
the bare program of the same round. The first table's starts and `status` took twice as many, with
nothing else between them.
"""

_STATUS = "`status --json`"
_PASS = "`python -c pass`"  # noqa: S105 - a command, no secret


def measure_promise(ways: Sequence[Way], rounds: int) -> Samples:
    """Start only the bare program and ours, more often: the promise is about these two."""
    return measure_starts([way for way in ways if way.name in (BARE, OURS)], 2 * rounds)


def measure_starts(ways: Sequence[Way], rounds: int) -> Samples:
    """Start the server every way, round by round."""

    def make(way: Way) -> Case:
        def run() -> dict[str, float]:
            with tempfile.TemporaryDirectory() as directory:
                return time_start(way, Path(directory))

        return Case(way.name, run)

    prepare_pm2()
    try:
        return interleave([make(way) for way in ways], rounds)
    finally:
        clean_up_pm2()


def take_censuses(ways: Sequence[Way]) -> dict[str, dict[str, Any]]:
    """Look at each launcher in the moment of its last fork."""
    found: dict[str, dict[str, Any]] = {}
    for way in ways:
        if not way.census:
            continue
        with tempfile.TemporaryDirectory() as directory:
            census = Path(directory) / "census"
            probe = {
                "PYTHONPATH": str(Path(__file__).parent / "probe"),
                "BENCH_CENSUS": str(census),
            }
            time_start(way, Path(directory), probe)
            lines = census.read_text().splitlines() if census.exists() else []
            if lines:
                found[way.name] = json.loads(lines[-1])
    return found


def measure_status(rounds: int) -> Samples:
    """Ask a running service how it is, beside an interpreter that does nothing."""
    name = f"bench-status-{os.getpid()}"
    subprocess.run(
        [
            *(FORKFIRST, "start", f"{PEERS / 'app.py'}:main"),
            *("--name", name, "--listen", "web=127.0.0.1:0"),
        ],
        check=True,
        capture_output=True,
    )

    def timed(*command: str) -> Case:
        def run() -> dict[str, float]:
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            return {"ms": 1000 * (time.perf_counter() - began)}

        return Case(_STATUS if command[0] == FORKFIRST else _PASS, run)

    try:
        cases = [timed(FORKFIRST, "status", name, "--json"), timed(sys.executable, "-c", "pass")]
        return interleave(cases, 2 * rounds)
    finally:
        subprocess.run([FORKFIRST, "stop", name], check=False, capture_output=True)


def measure_descriptor_limits(rounds: int) -> Samples:
    """Start with a limit of descriptors that strace makes the kernel report."""

    def make(limit: int, pattern: str) -> Case:
        def command(port: int, directory: Path) -> Sequence[str]:
            return (
                *("strace", "--follow-forks", "--seccomp-bpf", "--quiet=all"),
                *("--output=/dev/null", "--trace=prlimit64"),
                f"--inject=prlimit64:poke_exit=@arg4={pattern}{pattern}:when=1+",
                *start_with_forkfirst(port, directory),
            )

        # strace stays until the daemon ends, so it cannot be waited for as a launcher.
        way = Way(str(limit), command, foreground=True, stop=stop_with_forkfirst)

        def run() -> dict[str, float]:
            with tempfile.TemporaryDirectory() as directory:
                return time_start(way, Path(directory))

        return Case(str(limit), run)

    return interleave([make(*each) for each in _LIMITS.items()], rounds)


# -- what is written down --------------------------------------------------------------------------


def write_starts(samples: Samples, ways: Sequence[Way]) -> str:
    """Return the table of all ways."""
    rows = []
    bare = samples.figure(BARE, "rss_kib").median
    for way in ways:
        refused = sum(samples.values(way.name, "refused"))
        count = len(samples.values(way.name, "refused"))
        gap = samples.figure(way.name, "gap_ms")
        resident = samples.figure(way.name, "rss_kib").median
        rows.append(
            (
                way.name,
                f"{samples.figure(way.name, 'ready_ms'):.1f}",
                f"{samples.ratio(way.name, BARE, 'ready_ms'):.2f}",
                "–" if way.foreground else f"{gap:+.1f}",
                "–" if way.foreground else f"{refused:.0f} of {count}",
                f"{resident / 1024:.1f} ({(resident - bare) / 1024:+.1f})",
            )
        )
    heading = (
        "started by",
        "prompt back and port answers, ms",
        "÷ bare",
        "first answer after the prompt, ms",
        "refused at the prompt",
        "resident, MiB (− bare)",
    )
    return write_table(heading, rows)


def write_censuses(censuses: dict[str, dict[str, Any]]) -> str:
    """Return the table of what was alive at the fork."""
    rows = [
        (
            name,
            str(census["threads"]),
            str(census["loops"]),
            str(census["epolls"]),
            ", ".join(census["foreign"]) or "none",
            str(census["modules"]),
        )
        for name, census in censuses.items()
    ]
    heading = ("launcher", "threads", "loops", "epolls", "foreign modules", "modules in all")
    return write_table(heading, rows)


def judge(bar: str, measured: str, *, kept: bool) -> tuple[str, str, str]:
    """Return a row that says whether a promise was kept."""
    return bar, measured, "kept" if kept else "**not kept**"


def write_promises(
    starts: Samples,
    censuses: dict[str, dict[str, Any]],
    status: Samples,
    limits: Samples | None,
) -> str:
    """Return the table of the project's own bars."""
    ratio = starts.ratio(OURS, BARE, "ready_ms")
    refused = sum(starts.values(OURS, "refused"))
    resident = (
        starts.figure(OURS, "rss_kib").median - starts.figure(BARE, "rss_kib").median
    ) / 1024
    alive = censuses[OURS]
    asked: Figure = status.ratio(_STATUS, _PASS, "ms")
    rows = [
        judge("ready ÷ bare ≤ 1.06", f"{ratio:.3f}", kept=ratio.median <= 1.06),
        judge(
            "the port answers when the launcher exits",
            f"refused {refused:.0f} of {ratio.rounds}",
            kept=refused == 0,
        ),
        judge("resident − bare ≤ 1.5 MiB", f"{resident:+.2f} MiB", kept=resident <= 1.5),
        judge(
            "at the fork: 1 thread, 0 loops, 0 epolls, 0 foreign modules",
            f"{alive['threads']}, {alive['loops']}, {alive['epolls']}, {len(alive['foreign'])}",
            kept=(alive["threads"], alive["loops"], alive["epolls"], alive["foreign"])
            == (1, 0, 0, []),
        ),
        judge("`status --json` ÷ `python -c pass` ≤ 2.5", f"{asked:.2f}", kept=asked.median <= 2.5),
    ]
    if limits is not None:
        small, huge = map(str, _LIMITS)
        slower = limits.ratio(huge, small, "ready_ms")
        # "No slower" is judged by the noise: one must lie within the other's middle half.
        rows.append(
            judge(
                "a limit of 1,073,741,822 descriptors ÷ one of 1,024: no slower",
                f"{slower:.3f}",
                kept=slower.low <= 1.0 or slower.median <= 1.02,
            )
        )
    return write_table(("bar", "measured", ""), rows)


def main() -> None:
    """Measure everything and put it into the results."""
    options = _parse_options()
    ways, skipped = find_ways()
    if options.only:
        kept = {BARE, OURS}
        ways = [way for way in ways if way.name in kept or options.only in way.name]
    with tempfile.TemporaryDirectory(prefix="forkfirst-bench-") as state:
        os.environ["FORKFIRST_STATE_DIR"] = state
        os.environ["PM2_HOME"] = f"{state}/pm2"
        ways, failed = _try_each_once(ways)
        starts = measure_starts(ways, options.rounds)
        pair = measure_promise(ways, options.rounds)
        censuses = take_censuses(ways)
        status = measure_status(options.rounds)
        limits = measure_descriptor_limits(options.rounds) if shutil.which("strace") else None
    parts = [
        f"## A start, on {describe_machine()}\n",
        _HOW.format(options.rounds),
        write_promises(pair, censuses, status, limits),
        write_starts(starts, ways),
        "At the moment of the launcher's last fork:\n",
        write_censuses(censuses),
    ]
    left_out = [f"- {name}: {why}" for name, why in (*skipped, *failed)]
    if limits is None:
        left_out.append("- the pretended limits of descriptors: strace is not installed")
    if left_out:
        parts.append("Not measured on this machine:\n\n" + "\n".join(left_out) + "\n")
    text = "\n".join(parts)
    print(text)
    if not options.only:
        put_section(f"start on {sys.version_info.major}.{sys.version_info.minor}", text)


def _try_each_once(ways: Sequence[Way]) -> tuple[list[Way], list[tuple[str, str]]]:
    """Leave out a peer that is installed but does not run here, with what it said."""
    good: list[Way] = []
    failed: list[tuple[str, str]] = []
    prepare_pm2()
    for way in ways:
        try:
            with tempfile.TemporaryDirectory() as directory:
                time_start(way, Path(directory))
        except StartFailedError as error:
            if way.name in (BARE, OURS):
                raise
            failed.append((way.name, "does not start here: " + str(error).strip()[-200:]))
        else:
            good.append(way)
    return good, failed


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="measure what a start costs")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of which to tell")
    parser.add_argument("--only", default="", help="only ways whose name has this; writes no file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
