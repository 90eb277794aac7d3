"""Plays every state of the guard's table and writes what came of it, for each Python given.

    python docs/generate/hazard_corpus.py .venv/bin/python .venv-3.12/bin/python …

Each interpreter needs forkfirst and what tests/guard/corpus/requirements.txt lists; a state whose
package is missing is said to be. Takes about a minute for each Python, on two processors.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from guard.corpus import watching  # noqa: E402 - found through the line above
from guard.corpus.registry import HOMES, State, read_all  # noqa: E402 - as above

if TYPE_CHECKING:
    from guard.corpus.watching import Played

PAGE = ROOT / "docs" / "reference" / "hazard-corpus.md"

_HEAD = """# The table of process states

<!-- Made by docs/generate/hazard_corpus.py, which forks in every one of these states. -->

What the guard is measured by. Each state is made in a fresh interpreter; the guard is asked; then
the process is *really* forked, the child does what such a child is for (it uses what it inherited,
or starts afresh), and both are watched. A process hangs if for 0.6 s neither it nor its parent uses
the processor or is switched to.

One state can break in one use and survive another: a child that starts a loop of its own inside a
running one may live, one that carries on may not. The guard sees the state and cannot see the use.
So each state is listed once, with the use that people make of it; three are listed a second time
with a use that survives, and count as what they are: false refusals.

*wrong* is an exception, or one process's effect on the other: a lost answer, a killed worker, a
line written twice. Those marked *unseen* are known to pass: they cannot be seen from inside, cannot
hang the runtime, and are in the [list of hazards](hazards.md) with what forkfirst does about them.
"""
_TITLES = {
    "asyncio_states": "asyncio",
    "descriptor_states": "Descriptors and file locks",
    "exit_states": "Ends and beginnings",
    "harmless_states": "What a guard could take for a hazard",
    "library_states": "Libraries with a runtime of their own",
    "process_states": "Processes and interpreters",
    "runtime_states": "Other runtimes",
    "thread_states": "Threads",
}


def main() -> int:
    """Play everything and write the page; 1 if the guard missed what it must not."""
    pythons = sys.argv[1:] or [sys.executable]
    states = read_all()
    results = {python: _play_all(states, python) for python in pythons}
    names = {python: _name(python) for python in pythons}
    parts = [_HEAD, _summarise(states, results, names)]
    for home in HOMES:
        parts.append(f"## {_TITLES[home]}\n")
        parts.append(_table([state for state in states if state.home == home], results, names))
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    missed = sum(_count(states, result)["missed"] for result in results.values())
    print(f"{PAGE.relative_to(ROOT)}: written, {missed} missed")
    return 1 if missed else 0


def _name(python: str) -> str:
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    command = [python, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return done.stdout.strip()


def _play_all(states: list[State], python: str) -> dict[str, Played | None]:
    def play(state: State) -> Played | None:
        try:
            return watching.play(state.home, state.name, python)
        except AssertionError:
            return None  # it never came to its fork: what it needs is not there

    with ThreadPoolExecutor(2) as pool:
        return dict(
            zip((state.name for state in states), pool.map(play, states), strict=True),
        )


def _count(states: list[State], result: dict[str, Played | None]) -> dict[str, int]:
    counts = dict.fromkeys(("played", "harmless", "refused", "broken", "missed", "wrong", "let"), 0)
    for state in states:
        played = result[state.name]
        if played is None:
            continue
        counts["played"] += 1
        if played.outcome == "harmless":
            counts["harmless"] += 1
            counts["refused"] += played.refused
        elif played.outcome == "wrong":
            counts["wrong"] += 1
            counts["let"] += not played.refused
        else:
            counts["broken"] += 1
            counts["missed"] += not played.refused
    return counts


def _summarise(
    states: list[State], results: dict[str, dict[str, Played | None]], names: dict[str, str]
) -> str:
    rows = [
        "| Python | states | hang, crash | of these missed | wrong | unseen | harmless | refused |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for python, result in results.items():
        c = _count(states, result)
        share = 100 * c["refused"] / max(c["played"], 1)
        rows.append(
            f"| {names[python]} | {c['played']} | {c['broken']} | **{c['missed']}** | {c['wrong']}"
            f" | {c['let']} | {c['harmless']} | **{c['refused']}** ({share:.1f} % of all) |"
        )
    return "\n".join([*rows, ""])


def _table(
    states: list[State], results: dict[str, dict[str, Played | None]], names: dict[str, str]
) -> str:
    rows = [
        f"| state | {' | '.join(names.values())} | the guard says |",
        f"| --- | {' | '.join('---' for _ in names)} | --- |",
    ]
    for state in states:
        seen = [result[state.name] for result in results.values()]
        cells = [_describe(state, played) for played in seen]
        kinds: dict[str, None] = {}
        for played in seen:
            for kind, certainty in (played.verdict if played else {}).items():
                kinds[f"{certainty}: {kind}"] = None
        verdict = ", ".join(kinds) or ("nothing (unseen)" if state.unseen else "nothing")
        rows.append(f"| {state.text} | {' | '.join(cells)} | {verdict} |")
    return "\n".join([*rows, ""])


def _describe(state: State, played: Played | None) -> str:
    if played is None:
        return f"(needs {state.needs})"
    if played.outcome == "hang":
        return f"hang: {played.detail}"
    if played.outcome == "crash":
        return f"crash: {played.detail}"
    return played.outcome


if __name__ == "__main__":
    sys.exit(main())
