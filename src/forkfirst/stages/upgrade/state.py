"""What a supervisor hands over to the one that takes its place: read by another version, perhaps.

One JSON object in a file in memory. Descriptors are their numbers, for they stay where they are
through an exec; for each the state also says which file it is, so that a number that leads to
another one is noticed. Times are those of CLOCK_MONOTONIC, which goes on.
"""

from __future__ import annotations

import os
import stat

from forkfirst import __version__, errors
from forkfirst.plan import order
from forkfirst.stages import answers
from forkfirst.stages.start import Start
from forkfirst.stages.supervise.kit import Kit
from forkfirst.stages.supervise.loop import Supervisor
from forkfirst.stages.supervise.process import Process
from forkfirst.stages.supervise.spread import Spread
from forkfirst.stages.upgrade import parsing, plain
from forkfirst.unix import descriptors, held_pidfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from forkfirst.plan.plan import Plan

FORMAT = 1
"""To be raised when a reader of the old form would do something wrong; a new field is no reason."""

PROVED = "could take over: forkfirst "
"""What the last line of a proof begins with; the version follows."""

_CHUNK = 1 << 20


def describe(supervisor: Supervisor, *, answer: int, signals: Iterable[int] = ()) -> dict[str, Any]:
    """Return everything that *supervisor* has and knows.

    Args:
        supervisor: Which runs, and does not reload.
        answer: Where the outcome of the upgrade is waited for.
        signals: What was sent to it and not obeyed yet.

    Raises:
        OSError: A descriptor that it has is not open.
    """
    kits = _list_kits(supervisor)
    server = supervisor.start.server
    state = {
        "format": FORMAT,
        "forkfirst": __version__,
        "answer": answer,
        "signals": list(signals),
        "start": _describe_start(supervisor),
        "kits": [_describe_kit(kit) for kit in kits],
        "generations": [[number, kits.index(kit)] for number, kit in supervisor.kits.items()],
        "serving": kits.index(supervisor.kit),
        "spread": list(supervisor.spread.sockets.values()),
        "full": sorted(supervisor.spread.full),
        "fleet": plain.encode(supervisor.fleet),
        "processes": [one.hand_over() for one in supervisor.processes.values()],
        "spawned": list(supervisor.spawned.items()),
        "callers": [one.hand_over() for one in server.list_callers()] if server else [],
        "last_ticket": supervisor.last_ticket,
        "look_at": supervisor.looks.look_at,
        "measure_at": supervisor.looks.measure_at,
    }
    state["files"] = [[fd, *_identify(fd)] for fd in sorted(_list_descriptors(state))]
    return state


def write(state: Mapping[str, Any]) -> int:
    """Return the descriptor of a file in memory that has *state*.

    Raises:
        OSError: There is no memory, or no descriptor, for it.
    """
    import json  # noqa: PLC0415 - the control server has loaded it

    fd = descriptors.open_memory_file("forkfirst-state")
    rest = memoryview(json.dumps(state).encode("ascii"))
    while rest:
        rest = rest[os.write(fd, rest) :]
    return fd


def read(fd: int) -> dict[str, Any]:
    """Return the state in the file *fd*, of which this version must know the form.

    Raises:
        ForkfirstError: It does not.
    """
    text = b""
    while part := os.pread(fd, _CHUNK, len(text)):
        text += part
    state: dict[str, Any] = parsing.parse(text.decode("ascii"))
    if state["format"] != FORMAT:
        message = (
            f"forkfirst {state['forkfirst']} hands over in form {state['format']}, "
            f"and forkfirst {__version__} takes over form {FORMAT}"
        )
        raise errors.ForkfirstError(message)
    return state


def check_descriptors(state: Mapping[str, Any], without: Iterable[int] = ()) -> None:
    """Refuse unless each descriptor of *state* but *without* is open, and leads where it did.

    Raises:
        ForkfirstError: One does not.
    """
    left_out = frozenset(without)
    for fd, *identity in state["files"]:
        if fd in left_out:
            continue
        try:
            found = _identify(fd)
        except OSError as error:
            message = f"descriptor {fd} did not come along: {error.strerror}"
            raise errors.ForkfirstError(message) from error
        if found != identity:
            message = f"descriptor {fd} leads to {found}, and led to {identity}"
            raise errors.ForkfirstError(message)


def list_lifelines(state: Mapping[str, Any]) -> list[int]:
    """Return the ends whose closing ends a worker: a copy would keep it alive without us."""
    return [one["worker"][-1] for one in state["processes"]]


def rebuild(state: Mapping[str, Any]) -> Supervisor:
    """Return the supervisor that *state* describes; it has done nothing yet.

    Raises:
        ForkfirstError: This version cannot be it.
    """
    kits = [_rebuild_kit(one) for one in state["kits"]]
    supervisor = Supervisor(_rebuild_start(state["start"]))
    supervisor.first_kit = kits[state["serving"]]
    supervisor.start.listeners = list(supervisor.first_kit.listeners)
    supervisor.kits = {number: kits[index] for number, index in state["generations"]}
    spread = {first: rest for first, *rest in state.get("spread", ())}
    supervisor.spread = Spread(spread, state.get("full", ()))
    supervisor.fleet = plain.decode(state["fleet"])
    supervisor.processes = {one.number: one for one in map(Process.take_over, state["processes"])}
    supervisor.spawned = dict(state["spawned"])
    supervisor.last_ticket = state["last_ticket"]
    supervisor.control = state["start"]["control_name"]
    supervisor.looks.look_at, supervisor.looks.measure_at = state["look_at"], state["measure_at"]
    return supervisor


# -- the parts -------------------------------------------------------------------------------------


def _describe_start(supervisor: Supervisor) -> dict[str, Any]:
    start, facts = supervisor.start, supervisor.start.facts
    assert facts is not None  # noqa: S101 - it answers, so it has them
    path, before = start.replaced or ("", None)
    return {
        "plan": _describe_plan(start.plan),
        "command": list(start.command),
        "directory": start.directory,
        "lock": start.pid_file.fd if start.pid_file is not None else -1,
        "pid_file": start.pid_file.path if start.pid_file is not None else "",
        "has_log": facts.log is not None,
        "dropped_bytes": facts.log.dropped_bytes if facts.log is not None else 0,
        "control": start.control,
        "control_name": supervisor.control,
        "paths": start.paths,
        "held_outside": start.held_outside,
        "adopted": sorted(start.adopted),
        "stored": start.stored,
        "replaced": [path, before.decode("latin-1") if before is not None else None],
        "began": facts.began,
        "manager": start.manager.hand_over() if start.manager is not None else None,
    }


def _rebuild_start(data: Mapping[str, Any]) -> Start:
    command = tuple(data["command"])
    start = Start(_rebuild_plan(data["plan"]), command=command, directory=data["directory"])
    if data["lock"] >= 0:
        start.pid_file = held_pidfile.PidFile(data["lock"], data["pid_file"])
    if data["has_log"]:
        start.log = 1  # and 2: there it is already
    start.control = data["control"]
    start.paths = [(path, inode, device) for path, inode, device in data["paths"]]
    start.held_outside = data["held_outside"]
    start.adopted = set(data.get("adopted", ()))
    start.stored = [(name, fd) for name, fd in data["stored"]]
    path, before = data["replaced"]
    if path:
        start.replaced = path, before.encode("latin-1") if before is not None else None
    start.facts = answers.Facts(start.plan, began=data["began"], listeners=())
    if data["manager"] is not None:
        from forkfirst.stages.managed import telling  # noqa: PLC0415 - only where there is one

        start.manager = telling.Manager.take_over(data["manager"])
    return start


def _describe_plan(plan: Plan) -> dict[str, Any]:
    # Not its steps: what they do is for the version to decide that will take them.
    return {
        "mode": plan.mode,
        "service": plain.encode(plan.service),
        "places": plain.encode(plan.places),
        "identity": plain.encode(plan.identity),
    }


def _rebuild_plan(data: Mapping[str, Any]) -> Plan:
    return order.plan_again(
        plain.decode(data["service"]),
        mode=data["mode"],
        places=plain.decode(data["places"]),
        identity=plain.decode(data["identity"]),
    )


def _list_kits(supervisor: Supervisor) -> list[Kit]:
    """Return each kit that is in use, once."""
    found: list[Kit] = []
    for kit in (*supervisor.kits.values(), supervisor.kit):
        if kit not in found:
            found.append(kit)
    return found


def _describe_kit(kit: Kit) -> dict[str, Any]:
    return {
        "plan": _describe_plan(kit.plan),
        "listeners": kit.listeners,
        "described": kit.described,
        "runtime": kit.runtime,
        "fell_back": kit.fell_back,
    }


def _rebuild_kit(data: Mapping[str, Any]) -> Kit:
    listeners = [(name, fd) for name, fd in data["listeners"]]
    kit = Kit(_rebuild_plan(data["plan"]), listeners)
    kit.described = [(name, address) for name, address in data["described"]]
    kit.runtime = data["runtime"]
    kit.fell_back = data.get("fell_back", "")
    return kit


# -- descriptors -----------------------------------------------------------------------------------


def _list_descriptors(state: Mapping[str, Any]) -> set[int]:
    start = state["start"]
    found = {state["answer"], start["lock"], start["control"]}
    found.update(fd for _, fd in start["stored"])
    found.update(fd for kit in state["kits"] for _, fd in kit["listeners"])
    found.update(fd for several in state["spread"] for fd in several)
    found.update(fd for one in state["processes"] for fd in one["worker"][-2:])
    for caller in state["callers"]:
        found.update((caller["fd"], *caller["descriptors"]))
    return {fd for fd in found if fd >= 0}


def _identify(fd: int) -> list[int]:
    """Return what no other open file has: its kind, device and inode."""
    facts = os.fstat(fd)
    return [stat.S_IFMT(facts.st_mode), facts.st_dev, facts.st_ino]
