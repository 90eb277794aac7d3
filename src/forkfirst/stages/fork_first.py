"""First of all, the fork: before anything is opened or imported that a child could inherit broken.

The process that will be the service is made in the launcher's first moment, and waits for its
plan.
While the launcher reads its arguments, takes the lock and opens the listeners, the service imports
asyncio, on another processor: an import is half of what a start takes. Then the launcher hands
over the plan and the descriptors, as a predecessor hands them to its successor.

Measured, until the port answers, against a bare `python app.py`: see benchmarks/RESULTS.md.
"""

from __future__ import annotations

import os
import signal
import time

from forkfirst import errors
from forkfirst.plan import first, steps
from forkfirst.stages import taking
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import channel, passage, session, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from forkfirst.stages.taking import Table

_SILENCE_SECONDS = 5.0
"""How long a killed process may take to disappear: only the kernel can hold it up."""

_COURTESY_SECONDS = 0.05
"""How long the launcher stays out of the way of the service: fifty times what its fork takes."""

ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""What asks a launcher to give up."""


class Forked:
    """The process that will be the service, as each of its three relatives sees it.

    Attributes:
        program: The person's function, if the service is declared in their own program.
        began: When this was begun, in seconds of `time.monotonic`.
        child: What the last fork returned: 0 in the child; in the launcher, the session leader.
        report: Where the launcher hears how the start goes.
        report_to: Where the service and the leader say it.
        sender: Where the launcher hands over; `NO_DESCRIPTOR` elsewhere.
        receiver: Where the service takes over; `NO_DESCRIPTOR` elsewhere.
    """

    def __init__(self, program: Callable[..., object] | None = None) -> None:
        self.program = program
        self.began = time.monotonic()
        self.child = NO_DESCRIPTOR
        self.report: channel.Reader | None = None
        self.report_to = NO_DESCRIPTOR
        self.sender = NO_DESCRIPTOR
        self.receiver = NO_DESCRIPTOR

    def give_way(self) -> None:
        """Sleep until the leader says its first word, which is when the service is there.

        The kernel may leave a new process on its parent's processor, and behind its parent:
        measured, 2 to 5 ms until its first instruction, and 4 more after setsid(2), which moves it
        to another scheduling group (sched(7), autogroup). A parent that sleeps is in nobody's way.
        It is a courtesy, and has an end: whether all goes well is heard later (`launch`).
        """
        assert self.report is not None  # noqa: S101 - OpenReport comes before Fork
        self.report.wait(_COURTESY_SECONDS)

    def dismiss(self) -> None:
        """End the session leader, our own child: the service stands alone."""
        os.kill(self.child, signal.SIGKILL)  # not yet waited for, so the pid is still its own
        os.waitpid(self.child, 0)
        self.child = NO_DESCRIPTOR

    def end_unused(self) -> None:
        """End it if it was never handed a plan: the command line was wrong, or means a foreground.

        Signals are heard again: there is nothing any more that they could leave behind.
        """
        if self.sender != NO_DESCRIPTOR:
            self.end()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)

    def end(self) -> None:
        """End the leader, the service and whatever that has started; return when all are gone."""
        if self.child == NO_DESCRIPTOR:
            return
        try:  # noqa: SIM105 - contextlib is not loaded before a fork
            os.killpg(self.child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # no group of its own yet, so no service yet; or, on macOS, only zombies
        if self.sender == NO_DESCRIPTOR:  # it may run the program, which may start anything
            from forkfirst.stages import running  # noqa: PLC0415 - only for a failure

            running.end_session(self.child)
        else:
            os.close(self.sender)
            self.sender = NO_DESCRIPTOR
        self.dismiss()
        self._wait_for_silence()

    def _wait_for_silence(self) -> None:
        """Wait until nobody is left who could report, which is when the last of them is gone."""
        assert self.report is not None  # noqa: S101 - OpenReport comes before Fork
        deadline = time.monotonic() + _SILENCE_SECONDS
        try:
            while self.report.receive(deadline - time.monotonic()) is not None:
                continue
        except (TimeoutError, ValueError):
            return


def fork_service(
    table: Table, *, module: str = "", program: Callable[..., object] | None = None
) -> Forked:
    """Make the process that will be the service. Returns only in the launcher.

    Args:
        table: What takes each step.
        module: What the service imports while it waits, or "".
        program: The person's function, if it is known already.

    Raises:
        ForkfirstError: It cannot be made; nothing was.
    """
    forked = Forked(program)
    taking.apply_steps(first.FIRST_STEPS, forked, table)
    if forked.child == 0:
        lead(forked, module, table)
    os.close(forked.receiver)
    os.close(forked.report_to)  # ours would hide the end of file of the service's
    forked.receiver = forked.report_to = NO_DESCRIPTOR
    forked.give_way()
    return forked


def lead(
    forked: Forked,
    module: str,
    table: Table,
    chosen: tuple[steps.Step, ...] = first.LEADER_STEPS,
) -> NoReturn:
    """Be the session leader: take the steps of one, the last of which makes the service.

    Leaves by `_exit`, always, in both. The service is forked before the leader loads anything,
    because the service is what everybody waits for.
    """
    try:
        if forked.report is not None:  # the launcher's ends: a fresh interpreter has none of them
            os.close(forked.report.fileno())
            os.close(forked.sender)
        try:
            taking.apply_steps(chosen, forked, table)
        except errors.ForkfirstError as error:
            taking.report_refusal(forked.report_to, error)
            session.leave(error.exit_status)
        if forked.child == 0:
            from forkfirst.stages import child  # noqa: PLC0415 - the service's own code

            child.wait_for_plan(forked, module, table)
        announce(forked)
        passage.await_sent(forked.receiver)  # in nobody's way until then: see `give_way`
        os.close(forked.receiver)
        from forkfirst.stages import leader  # noqa: PLC0415 - the leader's own code

        leader.watch(forked.child, forked.report_to)
    except (OSError, ImportError) as error:  # no descriptor is left to read our own code, say
        taking.report_refusal(forked.report_to, taking.explain("watch the service", error))
        session.leave(errors.SystemRefusedError.exit_status)
    except BaseException:  # noqa: BLE001 - whatever it was, the frames below are the launcher's
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exc()
    finally:
        session.leave(errors.ForkfirstError.exit_status)


def announce(forked: Forked) -> None:
    """Say which process the service is. If nobody is left to hear it, watching it shows that."""
    try:  # noqa: SIM105 - contextlib is not loaded before a fork
        channel.send(forked.report_to, "born", pid=forked.child)
    except BrokenPipeError:
        pass


# -- in the launcher -------------------------------------------------------------------------------


def _hold_standard_descriptors(_: steps.HoldStandardDescriptors, __: object) -> None:
    stdio.hold_standard_descriptors()


def _judge_fork(_: steps.JudgeFork, __: object) -> None:
    from forkfirst.guard import glance  # noqa: PLC0415 - only a start that forks needs it

    if glance.glance():
        from forkfirst.guard import verdict  # noqa: PLC0415 - only if there is something to judge

        verdict.assert_fork_safe()


def _open_report(_: steps.OpenReport, forked: Forked) -> None:
    receive, forked.report_to = channel.open_channel()
    forked.report = channel.Reader(receive)
    forked.sender, forked.receiver = passage.open_passage()


def _fork(_: steps.Fork, forked: Any) -> None:
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # By whoever started us. The kernel would reap our children by itself, and their pids could
        # be somebody else's before we have waited for them.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A signal must not find the launcher between the fork and its handlers: `launch` unblocks them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    forked.child = session.fork()


# -- in its children -------------------------------------------------------------------------------


def _start_session(_: steps.StartSession, __: Forked) -> None:
    session.start_session()


def _fork_again(_: steps.ForkAgain, forked: Forked) -> None:
    forked.child = session.fork()


def _import_runtime_module(step: steps.ImportRuntimeModule, _: Forked) -> None:
    __import__(step.module)


TABLE: Table = {
    steps.HoldStandardDescriptors: _hold_standard_descriptors,
    steps.JudgeFork: _judge_fork,
    steps.OpenReport: _open_report,
    steps.Fork: _fork,
    steps.StartSession: _start_session,
    steps.ForkAgain: _fork_again,
    steps.ImportRuntimeModule: _import_runtime_module,
}
