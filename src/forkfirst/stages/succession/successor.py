"""The new process in a reload without a supervisor: ready first, and then the service.

Its program runs like any other; but the lock, the control socket, the pid file and the manager's
ear are still the predecessor's. One thread waits for the word to take over, or for the death of the
predecessor, which is the same word.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress

from forkfirst import errors
from forkfirst.plan import first, steps
from forkfirst.stages import apply, child, fork_first, leader, reload, taking
from forkfirst.stages.start import unlink_if_same
from forkfirst.stages.succession import estate
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import channel, children, session
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from forkfirst.stages import answers
    from forkfirst.stages.fork_first import Forked
    from forkfirst.stages.start import Start
    from forkfirst.stages.succession.estate import Estate
    from forkfirst.stages.taking import Table
    from forkfirst.unix.channel import Field

_DYING_SECONDS = 5.0
"""How long a process may take from its last descriptor to its end."""


def lead(forked: Forked, module: str) -> NoReturn:
    """Fork the successor, and watch it until it has taken over. Leaves by `_exit`, always.

    The predecessor is the parent of this process and not of the successor, which so becomes a child
    of process 1 at once, or of its manager: whoever starts services expects them there.
    """
    try:
        forked.child = session.fork()
        if forked.child == 0:
            _succeed(forked, module)
        fork_first.announce(forked)
        os.close(forked.receiver)
        leader.watch(forked.child, forked.report_to, outlives=True)
    except (OSError, ImportError) as error:
        failure = taking.explain("watch the successor", error)
        taking.report_refusal(forked.report_to, failure)
    finally:
        session.leave(errors.SystemRefusedError.exit_status)


def _succeed(forked: Forked, module: str) -> NoReturn:
    """Receive what there is, and run the program; leave by `_exit`, always."""
    try:
        taking.apply_steps(first.plan_early(module), forked, apply.TABLE)
        received = estate.receive(forked.receiver)
        if received is None:
            session.leave(0)
        Successor(received, forked).run()
    except errors.ForkfirstError as error:
        taking.report_refusal(forked.report_to, error)
        session.leave(error.exit_status)
    except (OSError, ImportError) as error:
        failure = taking.explain("succeed", error)
        taking.report_refusal(forked.report_to, failure)
        session.leave(failure.exit_status)
    except BaseException:  # noqa: BLE001 - whatever it was, the frames below are not a service's
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exc()
    finally:
        session.leave(errors.ForkfirstError.exit_status)


class Successor:
    """What the new process knows, and does beside running the program."""

    def __init__(self, received: Estate, forked: Forked) -> None:
        self.start = received.start
        self._estate = received
        self._report_to = forked.report_to
        self._orders = forked.receiver
        self._pidfd: int | None = None
        self._is_orphan = False
        try:
            self._pidfd = children.open_pidfd(received.predecessor)
        except ProcessLookupError:
            self._is_orphan = True  # killed meanwhile
        self._answer_to = received.answer
        self._lock = threading.Lock()  # of who takes over or leaves first, and of the answer
        self._speak: Callable[[], None] | None = None
        self._is_ready = False
        self._has_taken = False
        self._has_left = False
        self._told_to_stop = False

    def run(self) -> NoReturn:
        """Take the program's steps; the last of them runs it and leaves."""
        start = self.start
        chosen = start.plan.program
        # A supervisor's workers have these steps; this is no worker.
        start.plan = replace(start.plan, program=())
        start.report_to = self._report_to
        facts = child.make_facts(start, has_log=self._estate.has_log)
        telling = self._make_telling(facts)
        self._start_obeying()
        if start.plan.mode != "daemon":
            os.chdir(start.directory)  # the predecessor's program may be somewhere else
        take_last: Table = {steps.RunProgram: lambda _, __: child.run_program(start, telling)}
        start.module_path = _list_path()
        taking.apply_steps(chosen, start, apply.with_changes(take_last))
        raise AssertionError  # the last step leaves

    def _make_telling(self, facts: answers.Facts) -> child.Telling:
        child.log_to_journal(self.start)
        if self._estate.manager is None:
            return Telling(self.start, facts, self)
        from forkfirst.stages.succession import managed  # noqa: PLC0415 - only where there is one

        manager = self.start.manager = managed.take_over(self._estate.manager)
        telling = managed.ManagedTelling(self.start, facts, manager, self)
        self._speak = telling.speak
        return telling

    # -- what the program does ---------------------------------------------------------------------

    def report(self, kind: str, **fields: Field) -> None:
        """Tell the predecessor, if it is there."""
        with suppress(OSError):
            channel.send(self._report_to, kind, **fields)

    def became_ready(self) -> None:
        """Note that the program does its work."""
        self._is_ready = True
        self._answer_if_due()

    def leaves(self) -> None:
        """Take over no more. One that has, waits for what the predecessor still has to finish."""
        with self._lock:
            self._has_left = True
        if self._has_taken:
            children.wait_gone(self._estate.predecessor, self._pidfd, self._estate.drain_seconds)

    # -- what the predecessor wants ----------------------------------------------------------------

    def _start_obeying(self) -> None:
        threading.Thread(target=self._obey, name="forkfirst-successor", daemon=True).start()

    def _obey(self) -> None:
        reader = channel.Reader(self._orders)
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
        while not self._has_taken or self._speak is not None:
            ready = [fd for fd, _ in poll.poll(0 if self._is_orphan else None)]
            if self._orders in ready and (asked := reader.receive(None)) is not None:
                self._do(asked.kind)
            else:
                self._inherit()
                return

    def _do(self, asked: str) -> None:
        if asked == "stop":
            self._told_to_stop = True
            os.kill(os.getpid(), signal.SIGTERM)
        elif asked == "take over":
            self._take_over()
        elif asked == "speak":
            self._begin_to_speak()
        elif asked == "show" and self.start.facts is not None:
            child.show_stacks(self.start.facts, "the new process is not ready")
            self.report("shown")

    def _begin_to_speak(self) -> None:
        speak, self._speak = self._speak, None
        if speak is not None:
            speak()

    def _inherit(self) -> None:
        """Be the service, because the predecessor is dead; not if it has only fallen silent."""
        gone = children.wait_gone(self._estate.predecessor, self._pidfd, _DYING_SECONDS)
        if not self._has_taken:
            if not gone or self._told_to_stop:
                session.leave(errors.StuckError.exit_status)
            self._take_over()
        self._begin_to_speak()

    def _take_over(self) -> None:
        try:
            with self._lock:
                if self._has_left or self._told_to_stop:
                    self.report("refused", message="the service is to stop", hint="")
                    return
                self._become_service()
                self._has_taken = True
        except (errors.ForkfirstError, OSError) as error:
            self.report("refused", message=f"it cannot take over: {error}", hint="")
            session.leave(errors.ForkfirstError.exit_status)
        self.report("taken")
        self._answer_if_due()
        for made in self._estate.paths:
            if made[0] not in self._estate.kept:
                with suppress(OSError):
                    unlink_if_same(*made)

    def _become_service(self) -> None:
        start, received = self.start, self._estate
        assert start.facts is not None  # noqa: S101 - made before the program
        lock = estate.pid_file_of(received)
        if lock is not None:
            lock.rewrite(os.getpid())
        start.control = received.control
        if start.control != NO_DESCRIPTOR:
            child.start_server(start, start.facts)
        start.pid_file = lock
        start.paths = [one for one in received.paths if one[0] in received.kept]

    def _answer_if_due(self) -> None:
        """Tell whoever asked for the reload, once: of two threads, whichever comes second."""
        with self._lock:
            if not self._is_ready or not self._has_taken or self._answer_to == NO_DESCRIPTOR:
                return
            fd, self._answer_to = self._answer_to, NO_DESCRIPTOR
        reload.answer(fd, "succeeded", pid=os.getpid())


class Hearing(child.Telling):
    """What every successor tells, whoever manages it."""

    successor: Successor

    def ready(self, status: str) -> None:
        """Say READY to the predecessor."""
        super().ready(status)
        self.successor.became_ready()

    def left(self, status: int) -> None:
        """Hear that the program has ended."""
        super().left(status)
        self.successor.leaves()

    def _send(self, kind: str, **fields: str) -> bool:
        self.successor.report(kind, **fields)
        return False


class Telling(Hearing):
    """What a successor tells that nobody manages."""

    def __init__(self, start: Start, facts: answers.Facts, successor: Successor) -> None:
        super().__init__(start, facts)
        self.successor = successor


def _list_path() -> list[str]:
    import sys  # noqa: PLC0415 - one name of it

    return list(sys.path)
