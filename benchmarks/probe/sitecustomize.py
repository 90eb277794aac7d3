"""Looks at a process in the moment before it forks; put on PYTHONPATH by `start.py`.

Appends one JSON line per fork to the file that $BENCH_CENSUS names. It is loaded by the
interpreter itself, before any program, so it sees every Python peer the same way.

With $BENCH_BEGAN it notes when a process has begun to be a worker, for `workers.py`: that is when
it takes hold of its lifeline, the first thing that any worker does.
"""

from __future__ import annotations

import os
import sys

_ALREADY = set(sys.modules)


def _take_census() -> None:
    names = set(sys.modules)
    tasks = len(os.listdir("/proc/self/task"))
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + descriptor))
        except OSError:  # the listing's own descriptor
            continue
    loops = 0
    if "asyncio" in names:
        import gc

        base = sys.modules["asyncio"].AbstractEventLoop
        loops = sum(isinstance(each, base) for each in gc.get_objects())
    foreign = sorted(
        {
            name.partition(".")[0]
            for name in names - _ALREADY
            if name.partition(".")[0] not in sys.stdlib_module_names
        }
        - {"forkfirst", "__main__", "__mp_main__", "sitecustomize"}
    )
    import json

    line = {
        "threads": tasks,
        "loops": loops,
        "epolls": sum("eventpoll" in link for link in links),
        "foreign": foreign,
        "runtime modules": sorted({"asyncio", "uvloop", "trio", "twisted"} & names),
        "modules": len(names),
        "names": sorted(names - _ALREADY),
    }
    with open(os.environ["BENCH_CENSUS"], "a") as out:
        out.write(json.dumps(line) + "\n")


if os.environ.get("BENCH_CENSUS"):
    os.register_at_fork(before=_take_census)


def _note_began() -> None:
    import time

    from forkfirst.unix import lifeline

    hold = lifeline.hold

    def hold_and_note(fd: int, **options: bool) -> bool:
        sys.began_at = time.monotonic()  # type: ignore[attr-defined]  # for the program to tell
        return hold(fd, **options)

    lifeline.hold = hold_and_note


if os.environ.get("BENCH_BEGAN"):
    _note_began()
