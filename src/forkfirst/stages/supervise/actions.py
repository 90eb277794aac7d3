"""What the fleet decides, done: one function for each of its actions, and one table."""

from __future__ import annotations

import os
import signal

from forkfirst import errors
from forkfirst.plan.fleet import events, slots
from forkfirst.stages.preload import preloading
from forkfirst.stages.start import unlink_if_same
from forkfirst.stages.supervise import outside, starting
from forkfirst.stages.supervise.process import read_memory, read_resident
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import channel, children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from forkfirst.stages.supervise.kit import Kit
    from forkfirst.stages.supervise.loop import Supervisor
    from forkfirst.unix.channel import Field


class Ticket:
    """One reload that was asked for.

    Attributes:
        kit: What its generation is to have.
        fd: Where its answer goes.
    """

    def __init__(self, kit: Kit, fd: int) -> None:
        self.kit = kit
        self.fd = fd


def measure(pid: int) -> int:
    """Return the memory of *pid* in bytes."""
    return read_memory(pid) or read_resident(pid)


# -- workers ---------------------------------------------------------------------------------------


def _start_worker(supervisor: Supervisor, action: events.StartWorker) -> None:
    kit = starting.find_kit(supervisor, action.generation)
    start = preloading.start_worker if kit.is_preloaded else starting.fork_plainly
    if start(supervisor, action.worker, action.generation):
        supervisor.happen(events.Started(worker=action.worker, share=starting.throw_dice()))


def _drain(supervisor: Supervisor, action: events.Drain) -> None:
    _signal(supervisor, action.worker, signal.SIGTERM)


def _kill(supervisor: Supervisor, action: events.Kill) -> None:
    supervisor.say(f"worker {action.worker} has not ended in its time, and is killed")
    _signal(supervisor, action.worker, signal.SIGKILL)


def _signal(supervisor: Supervisor, number: int, signal_number: int) -> None:
    process = supervisor.processes.get(number)
    if process is not None:
        process.signal(signal_number)
    else:
        preloading.give_up(supervisor, number, signal_number)


def _tell(kind: str) -> Callable[[Supervisor, Any], None]:
    """Return what passes an action on to the worker as a message of *kind*."""

    def tell(supervisor: Supervisor, action: Any) -> None:
        process = supervisor.processes.get(action.worker)
        if process is not None:
            process.tell(kind)

    return tell


def _log_stacks(supervisor: Supervisor, action: events.LogStacks) -> None:
    supervisor.say(f"worker {action.worker} hangs: its loop does not turn; it will be replaced")
    _tell("log stacks")(supervisor, action)


def _check_queue(supervisor: Supervisor, action: events.CheckQueue) -> None:
    process = supervisor.processes.get(action.worker)
    waiting = 0
    if process is not None:
        slot = slots.find_slot(supervisor.fleet, action.worker)
        waiting = supervisor.spread.count_waiting(supervisor.kits[process.generation], slot)
    supervisor.happen(events.Queued(worker=action.worker, connections=waiting))


def _abandon(supervisor: Supervisor, action: events.Abandon) -> None:
    supervisor.say(f"worker {action.worker} does not end, though killed: the kernel holds it")


# -- generations -----------------------------------------------------------------------------------


def _forget_generation(supervisor: Supervisor, action: events.ForgetGeneration) -> None:
    preloading.forget(supervisor, action.generation)
    kit = supervisor.kits.pop(action.generation, None)
    if kit is not None:
        let_go(supervisor, kit)


def let_go(supervisor: Supervisor, kit: Kit) -> None:
    """Close what nobody but *kit* needs any more, and remove the paths that were its alone."""
    others = [*supervisor.kits.values(), *(one.kit for one in supervisor.tickets.values())]
    if kit in others or not others:  # with nobody left, the end of the service tidies up
        return
    start = supervisor.start
    unused = kit.close_unless_used(others)
    used = {fd for other in others for _, fd in other.listeners}
    start.adopted &= used
    supervisor.spread.forget(used)
    for made in [one for one in start.paths if one[0] in unused]:
        start.paths.remove(made)
        try:
            unlink_if_same(*made)
        except OSError as error:
            supervisor.say(f"cannot remove {made[0]}: {error.strerror}")
    start.listeners = list(supervisor.kit.listeners)


# -- reports ---------------------------------------------------------------------------------------


def _report_ready(supervisor: Supervisor, _: events.ReportReady) -> None:
    status = next((one.status for one in supervisor.processes.values() if one.status), "")
    _answer_launcher(supervisor, "ready", status=status)
    outside.say_ready(supervisor, status)


def _report_start_failed(supervisor: Supervisor, action: events.ReportStartFailed) -> None:
    what, hint = describe_failure(supervisor, action.worker, action.reason)
    if supervisor.start.report_to == NO_DESCRIPTOR:
        supervisor.say(f"cannot start: {what}")
        outside.say_failed(supervisor, what, action.exit_status)
    _answer_launcher(supervisor, "refused", message=what, hint=hint, exit_status=action.exit_status)


def describe_failure(supervisor: Supervisor, number: int | None, reason: str) -> tuple[str, str]:
    """Return why a worker was not ready, in the words of a service without workers, and a hint."""
    process = supervisor.processes.get(number or 0)
    process = process or preloading.find_waited_for(supervisor, number)
    if process is None or process.raw is None:
        return reason, ""
    if process.how not in ("", "raised"):
        return process.how, process.hint
    if process.how == "raised":
        return "the program failed before it was ready", ""
    if os.WIFSIGNALED(process.raw):
        return f"the program {children.describe_status(process.raw)} before it was ready", ""
    status = children.exit_status(process.raw)
    return f"the program ended with status {status} before it was ready", ""


def _answer_launcher(supervisor: Supervisor, kind: str, **fields: Field) -> None:
    fd, supervisor.start.report_to = supervisor.start.report_to, NO_DESCRIPTOR
    if fd == NO_DESCRIPTOR:
        return
    try:
        channel.send(fd, kind, **fields)
    except OSError:
        # The launcher is dead, and the session leader is about to end us all.
        supervisor.happen(events.StopAsked(exit_status=errors.StuckError.exit_status, force=True))
    os.close(fd)


def _report_reloaded(supervisor: Supervisor, action: events.ReportReloaded) -> None:
    supervisor.say(f"reloaded: generation {action.generation} serves")
    supervisor.looks.plan(supervisor)
    outside.keep_listeners(supervisor)
    outside.say_ready(supervisor, f"generation {action.generation} serves")
    for name in action.tickets:
        answer(supervisor, name, "reloaded", generation=action.generation)


def _report_reload_failed(supervisor: Supervisor, action: events.ReportReloadFailed) -> None:
    what, hint = describe_failure(supervisor, action.worker, action.reason)
    supervisor.say(f"not reloaded: {what}")
    outside.say_ready(supervisor, f"not reloaded: {what}")
    for name in action.tickets:
        answer(supervisor, name, "failed", reason=what, hint=hint)


def answer(supervisor: Supervisor, name: str, kind: str, **fields: Field) -> None:
    """Tell who asked for the reload *name* what became of it."""
    ticket = supervisor.tickets.pop(name, None)
    if ticket is None:
        return
    try:  # noqa: SIM105 - contextlib is not loaded here
        channel.send(ticket.fd, kind, **fields)
    except OSError:
        pass  # whoever asked has not waited
    os.close(ticket.fd)
    if ticket.kit not in supervisor.kits.values():
        let_go(supervisor, ticket.kit)


def _report_crash_loop(supervisor: Supervisor, action: events.ReportCrashLoop) -> None:
    times = "1 failure" if action.failures == 1 else f"{action.failures} failures in a row"
    left = {0: "none serves", 1: "1 still serves"}.get(action.ready, f"{action.ready} still serve")
    what_to_do = "mend it, then reload or scale" if action.ready else "mend it, then start it"
    supervisor.say(f"{times}: no worker is started any more ({left}); {what_to_do}")


# -- time ------------------------------------------------------------------------------------------


def _arm_timer(_: Supervisor, __: events.ArmTimer) -> None:
    """Do nothing: the loop asks the fleet for its timer at every turn."""


def _finish(supervisor: Supervisor, action: events.Finish) -> None:
    supervisor.finished = action.exit_status


TABLE: dict[type[events.Action], Callable[[Supervisor, Any], None]] = {
    events.StartWorker: _start_worker,
    events.Drain: _drain,
    events.Pause: _tell("pause"),
    events.Resume: _tell("resume"),
    events.Kill: _kill,
    events.LogStacks: _log_stacks,
    events.CheckHealth: _tell("health"),
    events.CheckQueue: _check_queue,
    events.Abandon: _abandon,
    events.ForgetGeneration: _forget_generation,
    events.ReportReady: _report_ready,
    events.ReportStartFailed: _report_start_failed,
    events.ReportReloaded: _report_reloaded,
    events.ReportReloadFailed: _report_reload_failed,
    events.ReportCrashLoop: _report_crash_loop,
    events.ArmTimer: _arm_timer,
    events.Finish: _finish,
}
