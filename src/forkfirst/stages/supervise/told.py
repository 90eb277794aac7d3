"""What the supervisor answers on the control socket, for its workers and for itself."""

from __future__ import annotations

import os
import select
import time

from forkfirst.control import server
from forkfirst.plan.fleet import events
from forkfirst.stages import answers
from forkfirst.stages.preload import preloading
from forkfirst.stages.supervise import reloading
from forkfirst.stages.supervise.process import read_resident
from forkfirst.unix import log_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forkfirst.stages.supervise.loop import Supervisor

_STACKS_WITHIN = 1.0
"""Seconds that the workers have to tell their stacks, while nobody is served by this process."""


def serve(supervisor: Supervisor) -> None:
    """Install the log, and make the control server that the loop drives."""
    start = supervisor.start
    if start.facts is None:  # else they are those of an upgrade
        start.facts = answers.Facts(start.plan, began=time.time(), listeners=())
    facts = start.facts
    if start.log >= 0:
        service = start.plan.service
        facts.log = log_file.Log(
            path=start.plan.places.log, max_bytes=service.log_size, keep=service.log_keep
        )
        facts.log.install()
    supervisor.control = supervisor.control or start.plan.places.control_socket
    if start.control < 0:  # under a manager; a name of the kernel's leaves no file
        supervisor.control = f"@forkfirst-{os.getpid()}-{os.urandom(8).hex()}"
        start.control = server.open_socket("\0" + supervisor.control[1:])
    start.server = server.Server(
        start.control,
        {
            "ping": lambda _: {},
            "status": lambda _: describe(supervisor),
            "stacks": lambda _: {"stacks": describe_stacks(supervisor)},
            "stop": lambda _: answers.stop(),
            "rotate": lambda _: rotate(supervisor),
            "scale": lambda request: _scale(supervisor, request),
            "declared": lambda _: {
                "listeners": list(supervisor.kit.addresses),
                "mode": start.plan.mode,
                "supervised": True,
                "refused": "",
                "hint": "",
            },
            "reload": lambda request: reloading.take_over(supervisor, request),
            "upgrade": lambda request: _upgrade(supervisor, request),
        },
        allowed_uids=frozenset({os.geteuid()}),
    )


def describe(supervisor: Supervisor) -> dict[str, Any]:
    """Return the answer to `status`: a service's, summed over its workers, and each of them."""
    facts = supervisor.start.facts
    assert facts is not None  # noqa: S101 - `serve` has made it
    facts.plan = supervisor.kit.plan
    facts.state = _describe_state(supervisor)
    facts.status = next((one.status for one in supervisor.processes.values() if one.status), "")
    workers = [_describe_worker(supervisor, one) for one in supervisor.fleet.workers]
    found = answers.describe(facts)
    found["supervisor_rss_bytes"] = found["rss_bytes"]
    found["rss_bytes"] += sum(one["rss_bytes"] for one in workers)
    found["cpu_seconds"] += sum(one["cpu_seconds"] for one in workers)
    found["threads"] += sum(one["threads"] for one in workers)
    found["listeners"] = supervisor.kit.described
    found["kept"] = supervisor.start.list_kept()
    found["sockets"] = supervisor.spread.describe(supervisor.kit)
    found["runtime"] = supervisor.kit.runtime
    found["asked"] = supervisor.count_asked()
    found["preload"] = preloading.describe(supervisor)
    found["workers"] = workers
    return found


def _describe_state(supervisor: Supervisor) -> str:
    state = supervisor.fleet.state
    if state == "running":
        degraded = any(one.state == "degraded" for one in supervisor.fleet.generations)
        return "degraded" if degraded else "ready"
    return state if state in ("starting", "stopping") else "reloading"


def _describe_worker(supervisor: Supervisor, one: Any) -> dict[str, Any]:
    process = supervisor.processes.get(one.id)
    now = time.monotonic()
    ticks, threads = _read_work(process.pid) if process is not None else (0, 0)
    return {
        "worker": one.id,
        "pid": process.pid if process is not None else 0,
        "state": one.state,
        "generation": one.generation,
        "state_seconds": now - one.since,
        "uptime_seconds": time.time() - process.began if process is not None else 0.0,
        "slot": one.slot,
        "attempts": one.attempts,
        "due": one.due,
        "status": process.status if process is not None else "",
        "rss_bytes": read_resident(process.pid) if process is not None else 0,
        "cpu_seconds": ticks / os.sysconf("SC_CLK_TCK"),
        "threads": threads,
    }


def _read_work(pid: int) -> tuple[int, int]:
    """Return the clock ticks that *pid* has worked, and its threads; zeros if nothing tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[11]) + int(fields[12]), int(fields[17])


def describe_stacks(supervisor: Supervisor) -> str:
    """Return where every worker is. Asks all at once, and waits a second at most."""
    asked = [one for one in supervisor.children if one.raw is None and one.tell("stacks")]
    waiting = {one.fd: one for one in asked}
    texts: dict[int, str] = {}
    deadline = time.monotonic() + _STACKS_WITHIN
    while waiting:
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            break
        for fd, _ in ready:
            process = waiting[fd]
            for report in process.hear():
                if report.kind == "stacks":
                    texts[process.pid] = str(report.fields["text"])
                    del waiting[fd]
                    break
                supervisor.note(process, report)
            if not process.is_heard:
                waiting.pop(fd, None)
    return "\n".join(
        f"{one.title}, generation {one.generation}:\n"
        + texts.get(one.pid, "  does not answer: code that holds the interpreter's lock\n")
        for one in supervisor.children
        if one in asked or one in supervisor.processes.values()
    )


def _scale(supervisor: Supervisor, request: Mapping[str, Any]) -> dict[str, Any]:
    from forkfirst.plan.service import MOST_WORKERS  # noqa: PLC0415 - loaded already

    wanted = request.get("workers")
    if not isinstance(wanted, int) or not 1 <= wanted <= MOST_WORKERS:
        message = f"a service has between 1 and {MOST_WORKERS} workers, not {wanted}"
        raise ValueError(message)
    before = supervisor.count_asked()
    supervisor.happen(events.ScaleAsked(workers=wanted))
    return {"before": before, "workers": wanted}


def _upgrade(supervisor: Supervisor, request: Mapping[str, Any]) -> dict[str, Any]:
    from forkfirst.stages.upgrade import upgrading  # noqa: PLC0415 - only for an upgrade

    return upgrading.begin(supervisor, request)


def rotate(supervisor: Supervisor, *, only_if_full: bool = False) -> dict[str, Any]:
    """Begin a new log file, and have every worker write to it."""
    facts = supervisor.start.facts
    assert facts is not None  # noqa: S101 - `serve` has made it
    if only_if_full:
        if facts.log is not None:
            facts.log.rotate_if_full()
        answer = {}
    else:
        facts.state = _describe_state(supervisor)  # perhaps nobody has asked for it yet
        answer = answers.rotate(facts)
    for process in supervisor.children:
        process.tell("reopen")
    return answer
