"""The templates, from the side of the supervisor: one for each generation that is preloaded.

A template is asked for one worker at a time, by the ends of a channel and of a lifeline; until it
has said its pid, a worker is a process without one. While the template still imports, those that
are to be forked wait here, as numbers.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

from forkfirst import errors
from forkfirst.plan.fleet import events, preloading, slots
from forkfirst.stages.preload import asking
from forkfirst.stages.supervise import process, starting
from forkfirst.stages.supervise.process import Process
from forkfirst.unix import children, passage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.stages.supervise.kit import Kit
    from forkfirst.stages.supervise.loop import Supervisor
    from forkfirst.unix.channel import Field, Report

_NOT_AGAIN_WITHIN = 60.0
"""Seconds in which a template that died is made again unasked only once: what kills it, such as a
limit of memory, may well kill the next one."""


class Template(Process):
    """One template's process.

    Attributes:
        is_ready: Whether workers can be forked from it.
        waiting: The workers that are to be, by the fleet's numbers.
        asked: The one that is just being forked, or None.
        refusal: Why it must not be forked, in full, or "".
    """

    def __init__(self, generation: int, pid: int, ends: tuple[int, int]) -> None:
        super().__init__(0, generation, pid, ends)
        self.is_ready = False
        self.waiting: list[int] = []
        self.asked: Process | None = None
        self.refusal = ""

    @property
    def is_busy(self) -> bool:
        """Whether a worker is to come of it."""
        return bool(self.waiting) or self.asked is not None

    @property
    def title(self) -> str:
        """What people are told that it is."""
        return f"the template (pid {self.pid})"

    def tell(self, kind: str, **_: Field) -> bool:
        """Have it do what a worker is told to do, as far as a template can."""
        if kind == "stacks" and not self.is_ready and self.raw is None:
            self.signal(asking.STACKS)
            return True
        if kind == "reopen":
            try:
                self.send(asking.REOPEN, ())
            except OSError:
                return False
            return True
        return False

    def send(self, word: bytes, descriptors: tuple[int, ...]) -> None:
        """Send *word* to whoever is spare.

        Raises:
            OSError: It is gone.
        """
        passage.send(self.fd, word, descriptors)


def start_worker(supervisor: Supervisor, number: int, generation: int) -> bool:
    """Have the template of *generation* fork the worker; make one, if there is none.

    Returns whether a worker is to be expected. If not, the fleet knows of it.
    """
    found = supervisor.templates.get(generation)
    if found is None:
        try:
            found = _make(supervisor, generation)
        except OSError as error:
            kit = supervisor.kits[generation]
            if error.errno == errno.ENOSYS and not _is_required(kit):
                kit.fell_back = str(error.strerror)
                supervisor.say(f"preload: fell back to plain workers: {error.strerror}")
                return starting.fork_plainly(supervisor, number, generation)
            starting.report_unstarted(supervisor, number, error)
            return False
        except errors.UnsafeFork as error:
            starting.report_unstarted(supervisor, number, error)
            return False
    found.waiting.append(number)
    _ask_for_next(supervisor, found)
    return True


def _is_required(kit: Kit) -> bool:
    return kit.plan.service.preload == preloading.REQUIRE


def _make(supervisor: Supervisor, generation: int) -> Template:
    """Fork a template. The supervisor has not imported the program, so it will have new code.

    Raises:
        UnsafeFork: The supervisor has become something that must not fork.
        OSError: The kernel refused; ENOSYS where it gives no process its orphans.
    """
    from forkfirst.stages.preload import template  # noqa: PLC0415 - only where there is one
    from forkfirst.unix import prctl  # noqa: PLC0415 - as above

    kit = starting.find_kit(supervisor, generation)
    prctl.become_subreaper()
    listeners = supervisor.spread.list_shared(kit)
    pid, ends = process.fork(
        lambda fd, held: template.run(supervisor.start, kit, fd, held, listeners),
        starting.list_foreign(supervisor, listeners),
    )
    made = supervisor.templates[generation] = Template(generation, pid, ends)
    return made


def _ask_for_next(supervisor: Supervisor, found: Template) -> None:
    """Ask for the worker that has waited longest, if nobody else is just being forked."""
    if not found.is_ready or found.asked is not None or not found.waiting:
        return
    number = found.waiting.pop(0)
    try:
        ours, theirs = process.open_ends()
    except OSError as error:
        starting.report_unstarted(supervisor, number, error)
        return
    found.asked = supervisor.processes[number] = Process(number, found.generation, 0, ours)
    kit, slot = supervisor.kits[found.generation], slots.find_slot(supervisor.fleet, number)
    supervisor.spread.make_room(supervisor, kit, slot)
    sockets = supervisor.spread.list_own(kit, slot)
    try:
        found.send(asking.FORK + b"%d" % number, (*theirs, *sockets))
    except OSError:
        pass  # it has died, and is about to be reaped
    finally:
        for fd in theirs:
            os.close(fd)


# -- what they say, and how they end -----------------------------------------------------------


def note(supervisor: Supervisor, one: Process, report: Report) -> None:
    """Deal with what a template has said, or a worker that was just forked from it."""
    fields = report.fields
    found = supervisor.templates.get(one.generation)
    if report.kind == "began":
        one.pid = int(fields["pid"])
        if found is not None and found.asked is one:
            found.asked = None
    elif one is found and report.kind == "preloaded":
        found.is_ready = True
    elif one is found:
        found.refusal = str(fields["message"])
        _fall_back(supervisor, found, str(fields["reason"]))
    if found is not None:
        _ask_for_next(supervisor, found)


def note_lost(supervisor: Supervisor, worker: Process) -> None:
    """Deal with one that is gone and has not said its pid, so that nobody can wait for it."""
    if supervisor.processes.get(worker.number) is not worker:
        return
    found = supervisor.templates.get(worker.generation)
    if found is not None and found.asked is worker:
        if _has_ended(found):
            return  # and `note_end` will have it forked anew
        found.asked = None
    supervisor.forget(worker, signal.SIGKILL)
    if found is not None:
        _ask_for_next(supervisor, found)


def _has_ended(found: Template) -> bool:
    """Return whether nobody is left who could take a word, so that its end is about to be heard.

    It cannot be waited for yet, perhaps: a process closes its descriptors before it has ended.
    """
    poll = select.poll()
    poll.register(found.fd, 0)
    return bool(poll.poll(0))


def note_end(supervisor: Supervisor, found: Template, raw: int) -> None:
    """Deal with the end of a template: by our own wish, by a failure, or because it was killed."""
    found.raw = raw
    kit = supervisor.kits.get(found.generation)
    if kit is None:
        del supervisor.templates[found.generation]
        return
    if found.refusal:
        supervisor.say(f"preload: fell back to plain workers: {found.refusal}")
    elif found.is_ready:
        how = children.describe_status(raw) + (f": {found.how}" if found.how else "")
        supervisor.say(f"{found.title} {how}")
        _recover(supervisor, found)
        if not found.waiting and time.monotonic() < kit.template_due:
            found.close()
            del supervisor.templates[found.generation]
            return
        kit.template_due = time.monotonic() + _NOT_AGAIN_WITHIN
        _make_again(supervisor, found)
        return
    elif not found.waiting:  # made again unasked, and nobody else will tell of it
        supervisor.say(f"{found.title} {children.describe_status(raw)}")
    status = children.exit_status(raw)
    for number in found.waiting:
        supervisor.happen(events.Exited(worker=number, status=status, jitter=starting.throw_dice()))
    found.close()
    del supervisor.templates[found.generation]


def make_after_upgrade(supervisor: Supervisor) -> None:
    """Make the templates anew that the exec has ended: now they fork the new forkfirst, too."""
    for one in supervisor.fleet.generations:
        kit = supervisor.kits[one.number]
        if one.state not in ("serving", "degraded") or not kit.is_preloaded:
            continue
        try:
            _make(supervisor, one.number)
        except (OSError, errors.UnsafeFork) as error:
            supervisor.say(f"preload: no template until the next worker is started: {error}")


def _recover(supervisor: Supervisor, found: Template) -> None:
    """Have the worker that was just being forked wait again: it is not its fault."""
    worker, found.asked = found.asked, None
    if worker is not None:
        del supervisor.processes[worker.number]
        worker.close()
        found.waiting.insert(0, worker.number)


def _make_again(supervisor: Supervisor, found: Template) -> None:
    found.close()
    del supervisor.templates[found.generation]
    try:
        made = _make(supervisor, found.generation)
    except (OSError, errors.UnsafeFork) as error:
        for number in found.waiting:
            starting.report_unstarted(supervisor, number, error)
        return
    made.waiting = found.waiting


def _fall_back(supervisor: Supervisor, found: Template, reason: str) -> None:
    """Go on with plain workers, for as long as there is this generation."""
    kit = supervisor.kits[found.generation]
    kit.fell_back = reason
    _recover(supervisor, found)
    waiting, found.waiting = found.waiting, []
    for number in waiting:
        starting.fork_plainly(supervisor, number, found.generation)


# -- what the fleet wants ----------------------------------------------------------------------


def give_up(supervisor: Supervisor, number: int, signal_number: int) -> None:
    """End the worker *number*, if it still waits to be forked."""
    for found in supervisor.templates.values():
        if number not in found.waiting:
            continue
        if signal_number == signal.SIGKILL:  # it has waited too long: the import hangs
            found.signal(signal.SIGKILL)
            return
        found.waiting.remove(number)
        status = children.exit_status(signal_number)
        supervisor.happen(events.Exited(worker=number, status=status))
        return


def end_all(supervisor: Supervisor) -> None:
    """End every template and what it has forked and not given away; wait until they are gone."""
    for found in supervisor.templates.values():
        found.close()
    for found in supervisor.templates.values():
        try:
            while True:
                os.waitpid(-found.pid, 0)
        except ChildProcessError:  # that was the last one of its group
            continue


def find_waited_for(supervisor: Supervisor, number: int | None) -> Process | None:
    """Return the template that the worker *number* waits for."""
    found = (one for one in supervisor.templates.values() if number in one.waiting)
    return next(found, None)


def forget(supervisor: Supervisor, generation: int) -> None:
    """End the template of *generation*, if it has one; it is reaped as any child."""
    found = supervisor.templates.get(generation)
    if found is not None:
        found.close()


def describe(supervisor: Supervisor) -> str:
    """Return what became of the wish to preload, for `status`; "" where there was none."""
    kit = supervisor.kit
    if not kit.plan.template:
        return ""
    if kit.fell_back:
        return f"fell back: {kit.fell_back}"
    numbers = [number for number, one in supervisor.kits.items() if one is kit]
    found = next(
        (supervisor.templates[one] for one in numbers if one in supervisor.templates), None
    )
    if found is None:
        return "the template has ended, and is made again for the next worker"
    return f"by the template, pid {found.pid}" if found.is_ready else f"begins, pid {found.pid}"
