"""What a running service answers, from what it knows of itself.

Called in the control thread, while the loop may be stuck: everything here only reads.
"""

from __future__ import annotations

import os
import time

from forkfirst import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from forkfirst.plan.plan import Plan
    from forkfirst.runtime.context import Context
    from forkfirst.unix.log_file import Log


class Facts:
    """What the service knows of itself. Written by the program's thread, read by the control's.

    Attributes:
        plan: How it was started.
        began: When, in seconds since the epoch.
        listeners: Name and descriptor of each listener.
        state: starting, ready or stopping.
        status: What the program last said of itself.
        runtime: Who runs the program.
        context: What the program was given, once it was.
        log: Where its output goes, or None.
    """

    def __init__(self, plan: Plan, *, began: float, listeners: tuple[tuple[str, int], ...]) -> None:
        self.plan = plan
        self.began = began
        self.listeners = listeners
        self.state = "starting"
        self.status = ""
        self.runtime = plan.service.runtime
        self.context: Context | None = None
        self.log: Log | None = None


def make_answers(facts: Facts) -> dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
    """Return what the control server answers to each request."""
    return {
        "ping": lambda _: {},
        "status": lambda _: describe(facts),
        "stacks": lambda _: {"stacks": describe_stacks(facts)},
        "stop": lambda _: stop(),
        "rotate": lambda _: rotate(facts),
    }


def describe(facts: Facts) -> dict[str, Any]:
    """Return the answer to `status`; times in seconds, sizes in bytes."""
    times = os.times()
    context = facts.context
    service = facts.plan.service
    return {
        "name": service.name,
        "pid": os.getpid(),
        "state": facts.state,
        "status": facts.status,
        "runtime": facts.runtime,
        "version": service.version,
        "forkfirst": __version__,
        "uptime_seconds": time.time() - facts.began,
        "grace_seconds": service.grace_seconds,
        "stuck_seconds": _stuck_seconds(context),
        "listeners": _describe_listeners(facts),
        "mode": facts.plan.mode,
        "log": facts.plan.places.log if facts.log is not None else "",
        "dropped_bytes": facts.log.dropped_bytes if facts.log is not None else 0,
        "rss_bytes": _resident_bytes(),
        "threads": _count_threads(),
        "cpu_seconds": times.user + times.system,
    }


def describe_stacks(facts: Facts) -> str:
    """Return where every thread is, and what every task waits for."""
    from forkfirst.runtime import stacks  # noqa: PLC0415 - loaded when somebody asks

    text = stacks.describe_threads()
    context = facts.context
    if context is not None:
        tasks = context.describe_tasks()
        text += f"\n{tasks}" if tasks else ""
    return text


def stop() -> dict[str, Any]:
    """Ask the program to stop, exactly as SIGTERM does."""
    import signal  # noqa: PLC0415 - loaded already

    os.kill(os.getpid(), signal.SIGTERM)
    return {"pid": os.getpid()}


def rotate(facts: Facts) -> dict[str, Any]:
    """Begin a new log file."""
    if facts.log is None:
        message = "this service has no log file: its output goes to whoever supervises it"
        raise ValueError(message)
    if facts.state == "starting":
        message = "it is still being started: its log is rotated when it is ready"
        raise ValueError(message)
    facts.log.rotate()
    return {"log": facts.plan.places.log}


def _describe_listeners(facts: Facts) -> list[tuple[str, str]]:
    if not facts.listeners:
        return []
    from forkfirst.unix import sockets  # noqa: PLC0415 - they were opened with it

    found = []
    for name, fd in facts.listeners:
        try:
            found.append((name, sockets.address_text(fd)))
        except OSError:
            continue  # the program has closed it: it is ending
    return found


def _stuck_seconds(context: Context | None) -> float:
    if context is None:
        return 0.0
    return context.pulse.stuck_seconds(time.monotonic())


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        import resource  # noqa: PLC0415 - where there is no /proc: the largest it ever was

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _count_threads() -> int:
    try:
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        import threading  # noqa: PLC0415 - where there is no /proc: those that Python knows

        return threading.active_count()
