"""The one harness: interleaved runs, medians, ratios to a baseline of the same run, and the noise.

Cases take turns, one run each a round, so that what the machine does meanwhile falls on all of
them. The first round warms the caches and is thrown away. A ratio is the median of the rounds'
own ratios: each is of two runs that stood side by side.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROUNDS = 15
"""The least that a median is taken of."""

RESULTS = Path(__file__).parent / "RESULTS.md"


class Case(NamedTuple):
    """Something to be measured.

    Attributes:
        name: What the table calls it.
        run: Runs it once and returns its figures by name; leaves nothing behind.
    """

    name: str
    run: Callable[[], Mapping[str, float]]


class Skipped(NamedTuple):
    """A case that cannot run on this machine, and why not."""

    name: str
    why: str


class Figure(NamedTuple):
    """The middle of many samples, and how far they lie apart."""

    median: float
    low: float
    high: float
    rounds: int

    def __format__(self, spec: str) -> str:
        """Write `52.1 (50.9–55.0)`: the median, the least and the most."""
        spec = spec or ".1f"
        return f"{self.median:{spec}} ({self.low:{spec}}–{self.high:{spec}})"


class Samples:
    """What every round measured: case by case, figure by figure."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[Mapping[str, float]]] = {}

    def add(self, case: str, figures: Mapping[str, float]) -> None:
        """Keep the figures of one run."""
        self._rounds.setdefault(case, []).append(figures)

    def values(self, case: str, figure: str) -> list[float]:
        """Return one figure of one case, round by round."""
        return [figures[figure] for figures in self._rounds[case]]

    def figure(self, case: str, figure: str) -> Figure:
        """Return the median and the noise of one figure of one case."""
        return summarise(self.values(case, figure))

    def ratio(self, case: str, baseline: str, figure: str, *, of: str = "") -> Figure:
        """Return how many times *baseline*'s figure (named *of*, if differently) this one is."""
        above = self.values(case, figure)
        below = self.values(baseline, of or figure)
        return summarise([a / b for a, b in zip(above, below, strict=True)])


def summarise(values: Sequence[float]) -> Figure:
    """Return the median of *values* and the middle half's bounds, which a single hiccup spares."""
    if len(values) < 2:
        return Figure(values[0], values[0], values[0], len(values))
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(median, low, high, len(values))


def interleave(cases: Sequence[Case], rounds: int = ROUNDS) -> Samples:
    """Run every case once a round, each round in another order; return all samples."""
    samples = Samples()
    for number in range(rounds + 1):
        # Another order each round, so that nobody always comes after the noisy one.
        order = list(cases)
        random.Random(number).shuffle(order)  # noqa: S311 - no secret
        for case in order:
            figures = case.run()
            if number:
                samples.add(case.name, figures)
        _show_progress(number, rounds)
    return samples


def write_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def describe_machine() -> str:
    """Say in one line on what all of it was measured."""
    model = "an unnamed processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if named:
            model = named[0].partition(":")[2].strip()
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{version}, {platform.system()} {platform.release().partition('-')[0]}, "
        f"{os.cpu_count()} × {model}"
    )


def put_section(key: str, text: str) -> None:
    """Write *text* as the section *key* of the results, in place of what stood there."""
    opening, closing = f"<!-- {key} -->\n", f"<!-- end of {key} -->\n"
    old = RESULTS.read_text() if RESULTS.exists() else "# What was measured\n\n"
    section = f"{opening}\n{text.strip()}\n\n{closing}"
    if opening in old and closing in old:
        before, _, rest = old.partition(opening)
        after = rest.partition(closing)[2]
        RESULTS.write_text(before + section + after)
    else:
        RESULTS.write_text(f"{old.rstrip()}\n\n{section}")


def _show_progress(number: int, rounds: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if number == rounds else ""
        sys.stderr.write(f"\rround {number} of {rounds}{end}")
        sys.stderr.flush()
