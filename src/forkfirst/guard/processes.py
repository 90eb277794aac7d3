"""What this process has beside itself: workers, helpers, interpreters, timers, clean-ups."""

from __future__ import annotations

import os
import sys

from forkfirst.guard.glance import read_whole
from forkfirst.guard.hazard import Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def find_process_hazards(*, thorough: bool) -> list[Hazard]:
    """Return the hazards that are not threads, loops or descriptors.

    Args:
        thorough: Also tell of helper processes, other children, timers and live temporary
            directories.
    """
    found = [*_find_interpreters(), *_find_workers()]
    if thorough:
        found += _find_helpers()
        found += _find_children(known=_worker_pids())
        found += _find_timers()
        found += _find_temporary_directories()
    return found


def _find_interpreters() -> list[Hazard]:
    """Find subinterpreters; one made from C is not seen while no module for them is loaded."""
    module = sys.modules.get("_interpreters") or sys.modules.get("_xxsubinterpreters")
    try:
        others = len(module.list_all()) - 1 if module is not None else 0
    except (AttributeError, RuntimeError):
        return []
    if others < 1:
        return []
    return [
        Hazard(
            kind="subinterpreter",
            certainty="fatal",
            subject=f"{others} subinterpreter{'' if others == 1 else 's'}",
            name="subinterpreter",
            things=tuple(f"interpreter {number}" for number in range(1, others + 1)),
            consequence="os.fork() itself would hang or crash in the child: CPython ends the other"
            " interpreters there without having their locks",
            remedy="make subinterpreters inside main()",
        )
    ]


def _worker_pids() -> dict[int, str]:
    process = sys.modules.get("multiprocessing.process")
    children = list(getattr(process, "_children", None) or ())
    # A finished worker stays in the set until it is joined; its pid is then not running any more.
    return {
        child.pid: child.name
        for child in children
        if getattr(child, "pid", None) and _is_alive(child)
    }


def _is_alive(child: Any) -> bool:
    try:
        return bool(child.is_alive())
    except Exception:  # noqa: BLE001 - not our child (after a fork), or closed
        return False


def _find_workers() -> list[Hazard]:
    workers = _worker_pids()
    if not workers:
        return []
    plural = "" if len(workers) == 1 else "es"
    return [
        Hazard(
            kind="worker-processes",
            certainty="danger",
            subject=f"{len(workers)} multiprocessing process{plural}",
            detail=", ".join(workers.values()),
            name=next(iter(workers.values())),
            things=tuple(f"pid {pid}" for pid in workers),
            consequence="a forked child that exits would terminate the daemonic ones, believing"
            " them its own, and could join none",
            remedy="start the processes inside main()",
        )
    ]


def _find_helpers() -> list[Hazard]:
    found = []
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    pid = getattr(getattr(tracker, "_resource_tracker", None), "_pid", None)
    if pid:
        found.append(
            _helper("resource tracker", pid, "it lives as long as the child holds its pipe")
        )
    server = sys.modules.get("multiprocessing.forkserver")
    pid = getattr(getattr(server, "_forkserver", None), "_forkserver_pid", None)
    if pid:
        found.append(
            _helper("fork server", pid, "a child cannot use it: it is not the child's own")
        )
    return found


def _helper(what: str, pid: int, detail: str) -> Hazard:
    return Hazard(
        kind="helper-process",
        certainty="notice",
        subject=f"1 {what} (pid {pid})",
        detail=detail,
        name=what,
        things=(f"pid {pid}",),
    )


def _find_children(*, known: dict[int, str]) -> list[Hazard]:
    """Find other children, if the kernel tells (CONFIG_PROC_CHILDREN)."""
    pids: list[int] = []
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:
        return []
    for task in tasks:  # a child belongs to the thread that started it
        pids += [int(pid) for pid in read_whole(f"/proc/self/task/{task}/children").split()]
    return [
        Hazard(
            kind="child-process",
            certainty="notice",
            subject=f"1 child process (pid {pid})",
            detail="it is no child of a forked child, which can neither wait for it nor reap it",
            name=str(pid),
            things=(f"pid {pid}",),
        )
        for pid in sorted(set(pids) - set(known))
    ]


def _find_timers() -> list[Hazard]:
    import signal  # noqa: PLC0415 - only for a thorough look

    return [
        Hazard(
            kind="timer",
            certainty="notice",
            subject=f"1 interval timer ({name})",
            detail="a forked child does not have it",
            name=name,
            things=(f"timer {name}",),
        )
        for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")
        if signal.getitimer(getattr(signal, name))[0] > 0
    ]


def _find_temporary_directories() -> list[Hazard]:
    """Find clean-ups that either process would do to the other (private: weakref's registry)."""
    registry = getattr(getattr(sys.modules.get("weakref"), "finalize", None), "_registry", {})
    found = []
    for entry in list(registry.values()):
        function = getattr(entry, "func", None)
        if getattr(function, "__qualname__", "") != "TemporaryDirectory._cleanup":
            continue
        path = str(entry.args[0]) if getattr(entry, "args", None) else "?"
        found.append(
            Hazard(
                kind="temporary-directory",
                certainty="notice",
                subject=f"1 live TemporaryDirectory ({path})",
                detail="whichever process leaves by sys.exit() first deletes it under the other",
                name=path,
                things=(f"directory {path}",),
            )
        )
    return found
