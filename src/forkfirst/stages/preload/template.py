"""The template: a process that has imported the program, and that workers are forked from.

It never runs a loop, has one thread, and judges itself before every fork. So it can fork for as
long as its generation lives, and what it has imported is in memory once, for all workers.

A fork of a process with 280 MB takes 7 ms (measured), because the kernel copies its page tables.
So the template does not wait until a worker is wanted. It always keeps one *spare*: a process that
is forked already, and that becomes a worker as soon as it receives the ends of a channel and of a
lifeline from the supervisor. Then the template forks the next one.

A spare is a grandchild: the process in between ends at once, and the kernel gives the spare to the
supervisor (PR_SET_CHILD_SUBREAPER), which so reaps every worker itself, with its exact status,
whatever becomes of the template.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from forkfirst import errors
from forkfirst.guard import verdict
from forkfirst.plan.fleet import preloading
from forkfirst.stages import answers, apply, child, program, taking
from forkfirst.stages.preload import sharing
from forkfirst.stages.preload.asking import FORK, REOPEN, STACKS
from forkfirst.stages.supervise import worker
from forkfirst.unix import channel, children, lifeline, passage, session, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from forkfirst.guard.hazard import Hazard
    from forkfirst.stages.start import Start
    from forkfirst.stages.supervise.kit import Kit
    from forkfirst.stages.supervise.worker import Listeners
    from forkfirst.stages.taking import Table

_SHOW_STACK_AT = 0.9
"""As for a worker: the share of the time to be ready after which it is shown where an import is."""
_STDERR = 2
_DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_WITHOUT = "leave out --preload (each worker then imports the program by itself)"


def run(supervisor: Start, kit: Kit, fd: int, held: int, listeners: Listeners) -> NoReturn:
    """Take the template's steps. Leaves by `_exit`, always, as a worker does."""
    try:
        # A group of its own, so that the one lifeline ends its spare and what is in between, too.
        os.setpgid(0, 0)
        lifeline.hold(held, group=True)
        signals.reset_handlers()
        for number in _DEAF_TO:  # they are for the supervisor, who ends this process when it ends
            signal.signal(number, _be_deaf)
        start = worker.make_start(supervisor, kit, fd, held, listeners)
        signal.signal(STACKS, _Stacks(start))
        signals.unblock_all()
        try:
            taking.apply_steps(kit.plan.template, start, apply.TABLE)
        except errors.ForkfirstError as error:
            taking.report_refusal(fd, error)
            session.leave(error.exit_status)
    except BaseException:  # noqa: BLE001 - whatever it was, it must not go on as a supervisor
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exc()
    finally:
        session.leave(errors.ForkfirstError.exit_status)


def _be_deaf(_: int, __: object) -> None:
    """Take a signal that was sent to the whole group, or to the whole service."""


class _Stacks:
    """Tells the supervisor where the import is: there is no thread that could be asked."""

    def __init__(self, start: Start) -> None:
        self._start = start

    def __call__(self, _: int, __: object) -> None:
        facts = self._start.facts
        assert facts is not None  # noqa: S101 - `make_start` has made it
        channel.send(self._start.report_to, "stacks", text=answers.describe_stacks(facts))


def _preload(step: preloading.Preload, start: Start) -> NoReturn:
    """Import, put aside, and keep a spare for ever."""
    import faulthandler  # noqa: PLC0415 - built in; after the fork, because it holds a descriptor
    import gc  # noqa: PLC0415 - built in

    faulthandler.enable()
    faulthandler.dump_traceback_later(
        start.plan.service.ready_seconds * _SHOW_STACK_AT, file=_STDERR
    )
    sharing.leave_inherited()
    gc.disable()  # it would walk through what is being made again and again, and find nothing
    assert start.facts is not None  # noqa: S101 - `make_start` has made it
    status = child.attempt(start, child.Telling(start, start.facts), lambda: _import(start))
    faulthandler.cancel_dump_traceback_later()
    if status or start.program is None:  # None: it has left by `sys.exit(0)`
        child.leave(start, status)
    signals.block_all()  # from here on, a signal is for none of those that are forked
    sharing.settle()
    _judge(step, start)
    spare = _fork_spare(start)
    channel.send(start.report_to, "preloaded")
    while True:
        _wait_until_used(start, spare)
        _judge(step, start)
        spare = _fork_spare(start)


def _judge(step: preloading.Preload, start: Start) -> None:
    """Return if this process may fork now; else say why not, and end."""
    refusing = verdict.find_hazards()
    if refusing:
        _refuse(step, start, refusing)


def _import(start: Start) -> int:
    program.preload(start)
    return 0


def _refuse(step: preloading.Preload, start: Start, refusing: Sequence[Hazard]) -> NoReturn:
    """Say why no worker can be forked from here, and end.

    Plain workers are asked for at once; then the program is imported once more in an interpreter
    of its own, under watch, which is slow, to name the line that did it.
    """
    if step.required:
        message, _ = _describe(start, _find_origins(start) or refusing)
        taking.report_refusal(start.report_to, errors.UnsafeFork(message))
        session.leave(errors.UnsafeFork.exit_status)
    message, reason = _describe(start, refusing)
    channel.send(start.report_to, "unsafe", message=message, reason=reason)
    message, reason = _describe(start, _find_origins(start) or refusing)
    channel.send(start.report_to, "unsafe", message=message, reason=reason)
    session.leave(errors.UnsafeFork.exit_status)


def _find_origins(start: Start) -> Sequence[Hazard]:
    from forkfirst.stages.fresh import examination  # noqa: PLC0415 - only for a refusal

    service = start.plan.service
    try:
        found = examination.examine_apart(
            service.target, service.source_directory, seconds=service.ready_seconds
        )
    except (errors.ForkfirstError, OSError):
        return ()  # what was seen here is told without
    return tuple(hazard for hazard in found.hazards if hazard.refuses)


def _describe(start: Start, hazards: Sequence[Hazard]) -> tuple[str, str]:
    """Return the refusal as a person reads it in full, and in one line."""
    from forkfirst.guard.hazard import describe_hazards  # noqa: PLC0415 - loaded already

    name = start.plan.service.name
    reason = "; ".join(" ".join(hazard.describe().split()) for hazard in hazards)
    return describe_hazards(hazards, service=name, instead=_WITHOUT), reason


# -- the spare -------------------------------------------------------------------------------------


def _fork_spare(start: Start) -> int:
    """Fork a spare; return the end of a pipe that is closed when it is none any more.

    Raises:
        SystemRefusedError: The kernel refused.
    """
    group = os.getpgid(os.getppid())
    told, tell = channel.open_channel()
    try:
        between = session.fork()
        if between == 0:
            _fork_again(start, told, tell, group)
        os.close(tell)
        status = children.exit_status(children.waitpid(between))
        if status and status < 128:  # noqa: PLR2004 - else it was killed, and the pipe tells the rest
            raise OSError(status, os.strerror(status))  # noqa: TRY301 - one explanation for both
    except OSError as error:
        refusal = taking.explain("fork a worker from the template", error, forks=True)
        raise refusal from error
    return told


def _fork_again(start: Start, told: int, tell: int, group: int) -> NoReturn:
    """End, having forked the spare, so that it is the supervisor's."""
    try:
        spare = os.fork()
    except OSError as error:
        session.leave(error.errno or 1)
    if spare:
        session.leave(0)
    try:
        os.close(told)
        _be_spare(start, tell, group)
    except BaseException:  # noqa: BLE001 - the frames below are the template's
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exc()
    finally:
        session.leave(errors.ForkfirstError.exit_status)


def _wait_until_used(start: Start, told: int) -> None:
    """Wait until the spare has become a worker, or has died; do what it passes on meanwhile."""
    while os.read(told, 1):
        _reopen(start)
    os.close(told)


def _be_spare(start: Start, tell: int, group: int) -> NoReturn:
    """Wait for the word to be a worker, and be it, in the process group *group*."""
    while True:
        received = passage.receive(start.report_to)
        if received is None:
            session.leave(0)
        word, descriptors = received
        if word != REOPEN:
            break
        _reopen(start)
        os.write(tell, b"r")
    for fd in (tell, start.report_to):
        os.close(fd)
    start.report_to, held, *sockets = descriptors
    own = iter(sockets)  # of the listeners that are spread, in their order
    start.listeners = [
        (name, next(own) if fd == taking.NO_DESCRIPTOR else fd) for name, fd in start.listeners
    ]
    lifeline.hold(held)
    os.setpgid(0, group)  # now the template's lifeline does not end it any more
    os.close(start.lifeline)
    start.lifeline = held
    channel.send(start.report_to, "began", pid=os.getpid())
    facts = start.facts
    assert facts is not None  # noqa: S101 - `make_start` has made it
    facts.began = time.time()
    facts.listeners = tuple(start.listeners)
    if isinstance(facts.log, worker.WorkerLog):
        facts.log.fd = start.report_to
    worker.work(start, start.plan.program, TABLE, int(word.removeprefix(FORK)))


def _reopen(start: Start) -> None:
    assert start.facts is not None  # noqa: S101 - as above
    if isinstance(start.facts.log, worker.WorkerLog):
        start.facts.log.reopen()


def _renew(_: preloading.Renew, __: Start) -> None:
    """Give this worker what Python does not renew by itself after a fork.

    Python does it for `random`, and for the names of `tempfile`.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.sigpending():  # sent to the spare, and so to no worker
        handler = signal.getsignal(number)
        if handler is not None:  # else it is not Python's
            signal.signal(number, signal.SIG_IGN)
            signal.signal(number, handler)
    for number in _DEAF_TO:
        if signal.getsignal(number) is _be_deaf:  # else the program has its own
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    if isinstance(signal.getsignal(STACKS), _Stacks):
        signal.signal(STACKS, signal.SIG_DFL)
    signals.unblock_all()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


TABLE: Table = {preloading.Preload: _preload, preloading.Renew: _renew}
