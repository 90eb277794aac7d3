"""A worker: forked by the supervisor, it takes its plan's last steps and runs the program.

It keeps one thread that obeys the supervisor: it answers while the loop is stuck. When the
supervisor dies, however it dies, the kernel ends the worker (`unix.lifeline`); a worker that served
on alone could neither be stopped nor reloaded.
"""

from __future__ import annotations

import os
import signal
import time
from _thread import RLock

from forkfirst import errors
from forkfirst.stages import answers, apply, child, taking
from forkfirst.stages.start import Start
from forkfirst.stages.supervise import process
from forkfirst.stages.supervise.process import Process
from forkfirst.stages.supervise.served import Served
from forkfirst.unix import channel, lifeline, log_file, session, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn, TypeAlias

    from forkfirst.plan import steps
    from forkfirst.runtime.context import Context
    from forkfirst.stages.supervise.kit import Kit
    from forkfirst.stages.taking import Table
    from forkfirst.unix.channel import Field, Report

    Listeners: TypeAlias = tuple[tuple[str, int], ...]

_SHOW_STACKS_AT = 0.9
"""The share of the time to be ready after which a worker that is not says where it waits."""


def fork_worker(  # noqa: PLR0913, PLR0917 - all that a worker is made of
    start: Start,
    kit: Kit,
    number: int,
    generation: int,
    foreign: Iterable[int],
    listeners: Listeners,
) -> Process:
    """Fork one worker; return in the supervisor only.

    Args:
        start: The service's.
        kit: What its generation has.
        number: What the fleet calls the worker.
        generation: And its generation.
        foreign: Descriptors of the supervisor that are nobody else's.
        listeners: Name and descriptor of each socket that it is to accept from.

    Raises:
        UnsafeFork: The supervisor has become something that must not fork.
        OSError: The kernel refused.
    """

    def run(fd: int, held: int) -> NoReturn:
        _run(lambda: make_start(start, kit, fd, held, listeners), held, number)

    pid, ends = process.fork(run, foreign)
    return Process(number, generation, pid, ends)


def _run(make: Callable[[], Start], held: int, number: int) -> NoReturn:
    """Take the worker's steps. Leaves by `_exit`, always: the frames below are the supervisor's."""
    try:
        signals.reset_handlers()
        signals.unblock_all()
        lifeline.hold(held)
        start = make()
        work(start, start.plan.plain, apply.TABLE, number)
    except BaseException:  # noqa: BLE001 - whatever it was, it must not go on as a supervisor
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exc()
    finally:
        session.leave(errors.ForkfirstError.exit_status)


def make_start(supervisor: Start, kit: Kit, fd: int, held: int, listeners: Listeners) -> Start:
    """Return what a child begins with, given its ends; let go of what is the supervisor's."""
    if supervisor.server is not None:
        supervisor.server.stop()  # our copies of its descriptors
    start = Start(kit.plan, command=supervisor.command, directory=supervisor.directory)
    start.listeners = list(listeners)
    start.report_to, start.lifeline = fd, held
    start.facts = answers.Facts(kit.plan, began=time.time(), listeners=listeners)
    if supervisor.facts is not None and supervisor.facts.log is not None:
        start.facts.log = WorkerLog(supervisor.facts.log, fd)
        start.facts.log.install()
    return start


def work(start: Start, chosen: Sequence[steps.Step], table: Table, number: int) -> NoReturn:
    """Take the steps *chosen* by *table* as worker *number*; the last of them runs the program."""
    assert start.facts is not None  # noqa: S101 - `make_start` has made it
    telling = _Telling(start, start.facts)
    telling.start_obeying(number)
    try:
        taking.apply_steps(chosen[:-1], start, table)
    except errors.ForkfirstError as error:
        taking.report_refusal(start.report_to, error)
        session.leave(error.exit_status)
    child.run_program(start, telling)


class WorkerLog(log_file.Log):
    """The worker's half of a log that is rotated by the supervisor, for all workers at once.

    Attributes:
        fd: The channel on which the supervisor is asked to.
    """

    def __init__(self, model: log_file.Log, fd: int) -> None:
        super().__init__(path=model.path, max_bytes=model.max_bytes, keep=model.keep)
        self.fd = fd
        self._has_asked = False

    def rotate(self) -> None:
        """Ask the supervisor to, once; it tells everybody to `reopen`."""
        if self._has_asked:
            return
        self._has_asked = True
        try:
            channel.send(self.fd, "log is full")
        except OSError:
            return

    def reopen(self) -> None:
        """Write to the file that has the log's name now."""
        self._has_asked = False
        if not self._is_current(os.fstat(1)):
            super().rotate()  # which only reopens what somebody else has rotated


class _Telling(child.Telling):
    """What a worker tells its supervisor, and what it does for it."""

    def __init__(self, start: Start, facts: answers.Facts) -> None:
        super().__init__(start, facts)
        self._fd = start.report_to
        # Re-entrant: a signal handler tells that the program stops while its thread tells a status.
        self._lock = RLock()
        self._is_ready = False

    def ready(self, status: str) -> None:
        """Say READY to the supervisor."""
        self._is_ready = True
        self._facts.state = "ready"
        self._send(
            "ready",
            status=status,
            addresses=_describe_listeners(self._start),
            runtime=self._facts.runtime,
        )

    def status(self, text: str) -> None:
        """Pass on what the program says of itself."""
        super().status(text)
        self._send("status", text=text)

    def begin(self, context: Context) -> None:
        """Count what the program says that it has served, if anybody wants to know."""
        super().begin(context)
        most = self._start.plan.service.max_requests
        if most:
            context.count_served = Served(most, self._tell_served).add

    def _tell_served(self, requests: int) -> None:
        self._send("served", requests=requests)

    def stopping(self) -> None:
        """Accept no more: the other workers do. What was accepted already is still served."""
        super().stopping()
        context = self._facts.context
        if context is not None:
            context.end_accepting()

    def _send(self, kind: str, **fields: Field) -> bool:
        try:
            with self._lock:
                channel.send(self._fd, kind, **fields)
        except BrokenPipeError:
            session.leave(errors.StuckError.exit_status)  # as the lifeline would have it
        return True

    # -- the thread that obeys --------------------------------------------------------------------

    def start_obeying(self, number: int) -> None:
        """Start the thread that does what the supervisor asks for."""
        import threading  # noqa: PLC0415 - after the fork only, and asyncio has it

        from forkfirst.control import server  # noqa: PLC0415 - the supervisor has loaded it

        self._number = number
        thread = threading.Thread(target=self._obey, name=server.THREAD_NAME, daemon=True)
        faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
        mask = signals.block(signal.valid_signals() - faults)
        try:
            thread.start()
        finally:
            signals.set_mask(mask)

    def _obey(self) -> None:
        reader = channel.Reader(self._fd)
        seconds: float | None = self._start.plan.service.ready_seconds * _SHOW_STACKS_AT
        while True:
            try:
                asked = reader.receive(seconds)
            except TimeoutError:
                if not self._is_ready:
                    self._log_stacks("is not ready")
                seconds = None
                continue
            except OSError:
                asked = None
            if asked is None:  # the supervisor is gone, on a system without lifelines
                session.leave(errors.StuckError.exit_status)
            if self._is_ready:
                seconds = None
            try:
                self._do(asked)
            except Exception as error:  # noqa: BLE001 - the next request must still be heard
                child.say(f"cannot answer {asked.kind!r}: {error}")

    def _do(self, asked: Report) -> None:
        context = self._facts.context
        match asked.kind:
            case "pulse":
                self._send("pulse", seconds=_read_pulse(context))
            case "stacks":
                self._send("stacks", text=answers.describe_stacks(self._facts))
            case "log stacks":
                self._log_stacks("hangs")
            case "reopen" if isinstance(self._facts.log, WorkerLog):
                self._facts.log.reopen()
            case "health":
                self._send("health", reason=_check_health(context))
            case "pause" if context is not None:
                context.pause_accepting()
            case "resume" if context is not None:
                context.resume_accepting()

    def _log_stacks(self, what: str) -> None:
        child.show_stacks(self._facts, f"worker {self._number} (pid {os.getpid()}) {what}")


def _describe_listeners(start: Start) -> str:
    if not start.listeners:
        return ""
    from forkfirst.unix import sockets  # noqa: PLC0415 - the program has loaded what it needs

    return "\0".join(sockets.address_text(fd) for _, fd in start.listeners)


def _read_pulse(context: Context | None) -> float:
    return 0.0 if context is None else context.pulse.stuck_seconds(time.monotonic())


def _check_health(context: Context | None) -> str:
    """Ask the program's own check; return "" if it is well, and else why not."""
    if context is None:
        return "it has not started"
    try:
        answer = context.healthy()
    except Exception as error:  # noqa: BLE001 - a check that fails is an answer
        return f"its check failed: {type(error).__name__}: {error}"
    if isinstance(answer, str):
        return answer
    return "" if answer else "its check says so"
