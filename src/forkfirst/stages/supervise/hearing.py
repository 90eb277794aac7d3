"""What the supervisor hears of its children: what they say, and how they end."""

from __future__ import annotations

from forkfirst.plan.fleet import events
from forkfirst.stages.preload import preloading
from forkfirst.stages.supervise import outside, starting, told
from forkfirst.unix import children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.stages.supervise.loop import Supervisor
    from forkfirst.stages.supervise.process import Process
    from forkfirst.unix.channel import Report


def hear(supervisor: Supervisor, process: Process) -> None:
    """Deal with everything that *process* has said, without waiting for more."""
    for report in process.hear():
        note(supervisor, process, report)
    if not process.pid and not process.is_heard:
        preloading.note_lost(supervisor, process)


def note(supervisor: Supervisor, process: Process, report: Report) -> None:
    """Deal with what a worker or a template has said; it may be of another version.

    After an upgrade, that is. So a field keeps its meaning for ever, and may be missing if new.
    """
    fields = report.fields
    match report.kind:
        case "began" | "preloaded" | "unsafe":
            preloading.note(supervisor, process, report)
        case "ready":
            process.status = str(fields["status"]) or process.status
            kit = supervisor.kits[process.generation]
            addresses = str(fields["addresses"]).split("\0") if kit.listeners else []
            names = [name for name, _ in kit.listeners]
            kit.described = list(zip(names, addresses, strict=True))
            kit.runtime = str(fields.get("runtime", kit.runtime))
            supervisor.happen(events.Ready(worker=process.number))
        case "status":
            process.status = str(fields["text"])
            outside.say_status(supervisor, process.status)
        case "ended":
            process.how = str(fields["how"])
        case "refused":
            process.how, process.hint = str(fields["message"]), str(fields["hint"])
        case "health":
            reason = str(fields["reason"])
            healthy = not reason
            supervisor.happen(events.Health(worker=process.number, healthy=healthy, reason=reason))
        case "pulse":
            supervisor.looks.note_pulse(supervisor, process, float(fields["seconds"]))
        case "served":
            requests = int(fields["requests"])
            supervisor.happen(events.Measured(worker=process.number, requests=requests))
        case "log is full":
            told.rotate(supervisor, only_if_full=True)


def reap(supervisor: Supervisor) -> None:
    """Wait for every child that has ended, and deal with it."""
    ended = children.reap_all()
    for process in [one for one in supervisor.processes.values() if not one.pid]:
        hear(supervisor, process)  # that it is one of those that have ended, maybe
    for pid, raw in ended:
        if supervisor.upgrade is not None and pid == supervisor.upgrade.pid:
            supervisor.upgrade.judge(supervisor, raw)
            continue
        found = next((one for one in supervisor.children if one.pid == pid), None)
        if found is None:
            _note_spawned(supervisor, pid, raw)
            continue
        hear(supervisor, found)  # its last words
        if isinstance(found, preloading.Template):
            preloading.note_end(supervisor, found, raw)
        else:
            forget(supervisor, found, raw)


def forget(supervisor: Supervisor, process: Process, raw: int) -> None:
    """Deal with the end of a worker."""
    process.raw = raw
    _say_how_it_ended(supervisor, process, raw)
    status = children.exit_status(raw)
    supervisor.happen(
        events.Exited(worker=process.number, status=status, jitter=starting.throw_dice())
    )
    del supervisor.processes[process.number]
    process.close()


def _note_spawned(supervisor: Supervisor, pid: int, raw: int) -> None:
    what = supervisor.spawned.pop(pid, "")
    if what and raw:
        supervisor.say(f"{what} {children.describe_status(raw)}")
        if supervisor.fleet.state == "running":  # its manager waits for the end of it
            outside.say_ready(supervisor, "not reloaded")


def _say_how_it_ended(supervisor: Supervisor, process: Process, raw: int) -> None:
    found = next((one for one in supervisor.fleet.workers if one.id == process.number), None)
    if found is not None and found.state in ("starting", "ready", "paused"):
        how = children.describe_status(raw)
        supervisor.say(f"worker {process.number} (pid {process.pid}) {how}")
