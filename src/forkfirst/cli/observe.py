"""`status`, `ps`, `stacks`, `rotate`: the commands that ask."""

from __future__ import annotations

import sys

from forkfirst import errors
from forkfirst.cli import known
from forkfirst.stages import running
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from forkfirst.cli.known import KnownService

RUNNING, DEAD_WITH_PID_FILE, NOT_RUNNING, UNKNOWN = 0, 1, 3, 4
"""What `status` exits with: LSB's statuses for an init script."""

_STUCK_SECONDS = 1.0
"""A loop that has not turned for so long is reported as stuck."""


class Observation(Value):
    """What one look at a service has shown.

    Attributes:
        name: The service.
        exit_status: What `status` exits with.
        state: running, starting, stopping, stuck, dead, stopped or unknown.
        pid: The process that holds the lock, or held it; 0 if none is known.
        facts: What the service said of itself; empty if it does not run or does not answer.
        trouble: Why it did not answer, or how it ended by itself, or "".
        ended: Its exit status, if it ended by itself; else None.
    """

    name: str
    exit_status: int
    state: str
    pid: int = 0
    facts: dict[str, Any] = {}  # noqa: RUF012 - a Value's default is never changed
    trouble: str = ""
    ended: int | None = None


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of *command*."""
    if command == "ps":
        parser.add_argument("--json", action="store_true", help="print a JSON array")
        return
    parser.add_argument("name", metavar="NAME", help="the service")
    if command == "status":
        parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(command: str, arguments: argparse.Namespace) -> int:
    """Do *command*; return its exit status."""
    match command:
        case "status":
            seen = observe(known.find(arguments.name))
            print(_to_json(_as_object(seen)) if arguments.json else describe(seen))
            return seen.exit_status
        case "ps":
            all_seen = [observe(known.find(name)) for name in known.list_names()]
            if arguments.json:
                print(_to_json([_as_object(seen) for seen in all_seen]))
            elif all_seen:
                print(_tabulate(all_seen))
            else:
                print("no services", file=sys.stderr)
        case "stacks":
            print(known.find(arguments.name).ask("stacks", seconds=5.0)["stacks"], end="")
        case "rotate":
            answer = known.find(arguments.name).ask("rotate", seconds=10.0)
            print(f"{arguments.name}: rotated {answer['log']}")
    return 0


def observe(service: KnownService) -> Observation:
    """Look at *service*: who holds its lock, and what it says of itself."""
    try:
        found = running.look_up(service.pid_file, service.owner)
    except errors.ForkfirstError as error:
        return Observation(
            name=service.name, exit_status=UNKNOWN, state="unknown", trouble=str(error)
        )
    if found is None and not service.managed:
        return Observation(
            name=service.name,
            exit_status=UNKNOWN if service.doubt else NOT_RUNNING,
            state="unknown" if service.doubt else "stopped",
            trouble=service.doubt or known.describe_end(service),
            ended=service.ended[0] if service.ended else None,
        )
    if found is not None and not found.is_running:
        return Observation(
            name=service.name, exit_status=DEAD_WITH_PID_FILE, state="dead", pid=found.pid
        )
    try:
        facts = service.ask("status")
    except errors.NotRunningError:
        return _explain_silence(service, found)
    except errors.ForkfirstError as error:
        return Observation(
            name=service.name,
            exit_status=RUNNING,
            state="stuck",
            pid=0 if found is None else found.pid,
            trouble=str(error),
        )
    state = str(facts["state"])
    if facts["stuck_seconds"] >= _STUCK_SECONDS:
        state = "stuck"
    pid = int(facts["pid"]) if found is None else found.pid
    return Observation(name=service.name, exit_status=RUNNING, state=state, pid=pid, facts=facts)


def _explain_silence(service: KnownService, found: running.Found | None) -> Observation:
    """Say what it means that nobody listens: the lock may be held all the same."""
    if found is None:
        return Observation(name=service.name, exit_status=NOT_RUNNING, state="stopped")
    if not running.is_orphaned(service.pid_file, service.owner):  # not yet, or no longer
        return Observation(name=service.name, exit_status=RUNNING, state="starting", pid=found.pid)
    return Observation(
        name=service.name,
        exit_status=DEAD_WITH_PID_FILE,
        state="dead",
        pid=found.pid,
        trouble="what it left behind holds its lock",
    )


def describe(seen: Observation) -> str:
    """Return the state in words, the most important first."""
    if seen.exit_status != RUNNING:
        return f"{seen.name}: {_describe_absence(seen)}"
    lines = [f"{seen.name}: {seen.state}, pid {seen.pid}"]
    facts = seen.facts
    if seen.trouble:
        lines.append(f"  does not answer: {seen.trouble}")
    if not facts:
        return "\n".join(lines)
    if seen.state == "stuck":
        lines.append(
            f"  its loop has not turned for {facts['stuck_seconds']:.1f} s; "
            f"see forkfirst stacks {seen.name}"
        )
    lines[0] += f", up {describe_seconds(facts['uptime_seconds'])}"
    if facts["status"]:
        lines.append(f"  status   {facts['status']}")
    lines.extend(_describe_listeners(facts))
    lines.append(
        f"  uses     {facts['rss_bytes'] / 2**20:.1f} MiB, {facts['threads']} threads, "
        f"{facts['cpu_seconds']:.2f} s of CPU, runtime {facts['runtime']}, "
        f"forkfirst {facts['forkfirst']}"
    )
    lines.extend(_describe_workers(facts))
    if facts["log"]:
        lines.append(f"  log      {facts['log']}")
    if facts["dropped_bytes"]:
        lines.append(
            f"  lost     {facts['dropped_bytes']} bytes of output: the log was not writable"
        )
    return "\n".join(lines)


def _describe_absence(seen: Observation) -> str:
    see = f"see forkfirst logs {seen.name}"
    match seen.state:
        case "unknown":
            return f"unknown: {seen.trouble}"
        case "stopped":
            return f"not running; {seen.trouble}; {see}" if seen.trouble else "not running"
    if seen.trouble:
        return f"dead, pid {seen.pid}; {seen.trouble}: see forkfirst stop {seen.name}"
    return f"dead; its pid file is left (pid {seen.pid}), a start replaces it; {see}"


def _describe_listeners(facts: dict[str, Any]) -> list[str]:
    listeners = facts["listeners"]
    kept = facts.get("kept", ())  # of an older version nothing is known
    sockets = facts.get("sockets") or [1] * len(listeners)  # said by a supervisor only
    return [
        f"  listens  {name}={address}"
        + (f", {count} sockets" if count > 1 else "")
        + (", kept over restarts" if name in kept else "")
        for (name, address), count in zip(listeners, sockets, strict=False)
    ]


def _describe_workers(facts: dict[str, Any]) -> list[str]:
    preload = [f"  preload  {facts['preload']}"] if facts.get("preload") else []
    return preload + [_describe_worker(one) for one in facts.get("workers", ())]


def _describe_worker(worker: dict[str, Any]) -> str:
    why = f", to be replaced: {worker['due']}" if worker["due"] else ""
    if worker["attempts"]:
        times = (
            "1 failure" if worker["attempts"] == 1 else f"{worker['attempts']} failures in a row"
        )
        why += f", after {times}"
    return (
        f"  worker   {worker['worker']}: {worker['state']} for "
        f"{describe_seconds(worker['state_seconds'])}, pid {worker['pid']}, "
        f"generation {worker['generation']}, {worker['rss_bytes'] / 2**20:.1f} MiB{why}"
    )


def describe_seconds(seconds: float) -> str:
    """Return a duration as a person would say it: two units at most."""
    whole = int(seconds)
    for size, unit, below in ((86400, "d", 3600), (3600, "h", 60), (60, "min", 1)):
        if whole >= size:
            rest = whole % size // below
            smaller = {3600: "h", 60: "min", 1: "s"}[below]
            return f"{whole // size} {unit} {rest} {smaller}"
    return f"{whole} s"


def _as_object(seen: Observation) -> dict[str, Any]:
    facts = {key: value for key, value in seen.facts.items() if key != "ok"}
    return {
        **facts,
        "name": seen.name,
        "state": seen.state,
        "running": seen.exit_status == RUNNING,
        "pid": seen.pid or None,
        "trouble": seen.trouble or None,
        "ended": seen.ended,
    }


def _to_json(data: object) -> str:
    import json  # noqa: PLC0415 - the client has loaded it already, if the service runs

    return json.dumps(data)


def _tabulate(all_seen: list[Observation]) -> str:
    rows = [("NAME", "STATE", "PID", "UP", "MEMORY", "STATUS")]
    for seen in all_seen:
        facts = seen.facts
        rows.append(
            (
                seen.name,
                seen.state,
                str(seen.pid or "-"),
                describe_seconds(facts["uptime_seconds"]) if facts else "-",
                f"{facts['rss_bytes'] / 2**20:.1f} MiB" if facts else "-",
                str(facts.get("status", "")) or seen.trouble,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
