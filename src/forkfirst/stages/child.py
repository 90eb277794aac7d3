"""The service: takes its steps, runs the program, tells the launcher how it went, tidies up.

Everything here happens after the last fork, in the process that will have the runtime. It leaves
by `_exit`: above it on the stack are the frames of the launcher that it was forked from.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from forkfirst import errors
from forkfirst.plan import first, preparation, steps
from forkfirst.stages import answers, program, taking
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import session, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any, NoReturn

    from forkfirst.runtime.context import Context
    from forkfirst.stages.fork_first import Forked
    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table

_STDERR = 2


def wait_for_plan(forked: Forked, module: str, table: Table) -> NoReturn:
    """Import what will be needed, take over the plan and the descriptors, and serve."""
    try:
        taking.apply_steps(first.plan_early(module), forked, table)
        if module:
            from forkfirst.runtime import asyncio_, target  # noqa: F401, PLC0415 - while we wait
        from forkfirst.control import server  # noqa: F401, PLC0415 - as above
        from forkfirst.stages import apply, handover  # noqa: PLC0415 - as above

        start = handover.take_over(forked)
    except (OSError, ImportError) as error:
        failure = taking.explain_refusal(preparation.HandOver(), error)
        taking.report_refusal(forked.report_to, failure)
        session.leave(failure.exit_status)
    except errors.ForkfirstError as error:
        taking.report_refusal(forked.report_to, error)
        session.leave(error.exit_status)
    if start is None:
        session.leave(0)
    serve(start, apply.with_changes(table))


def serve(start: Start, table: Table) -> NoReturn:
    """Take the service's steps; the last of them runs the program and leaves."""
    try:
        taking.apply_steps(start.plan.worker, start, table)
    except errors.ForkfirstError as error:
        if start.report_to == NO_DESCRIPTOR:
            raise
        taking.report_refusal(start.report_to, error)
        session.leave(error.exit_status)
    raise AssertionError  # the last step leaves


class Telling:
    """What the outside is told: the launcher by the report, everybody else by the answers."""

    def __init__(self, start: Start, facts: answers.Facts) -> None:
        self._start = start
        self._facts = facts

    def ready(self, status: str) -> None:
        """Say READY to the launcher, once; its end of the pipe is closed after it."""
        self._facts.state = "ready"
        self._facts.status = status or self._facts.status
        if self._facts.log is not None:
            self._facts.log.rotate_at(self._start.plan.service.log_size)
        if self._send("ready", status=status):
            os.close(self._start.report_to)
            self._start.report_to = NO_DESCRIPTOR

    def status(self, text: str) -> None:
        """Keep what the program says of itself, for `status`."""
        self._facts.status = text

    def stopping(self) -> None:
        """Note that the program was asked to stop."""
        self._facts.state = "stopping"
        if self._start.predecessor is not None:
            self._start.predecessor.stop()

    def begin(self, context: Context) -> None:
        """Have the program's *context*, before the program is there."""
        context.succeed = lambda: _reload_by_signal(self._start)
        if self._start.plan.mode == "daemon" and not context.supervised:
            # Its default would end the service. A program may still take it for itself.
            signal.signal(signal.SIGHUP, lambda *_: context.succeed())

    def left(self, status: int) -> None:
        """Hear with what status it ends."""

    def ended(self, how: str) -> None:
        """Tell a launcher that still waits how the program ended."""
        self._send("ended", how=how)

    def _send(self, kind: str, **fields: str) -> bool:
        if self._start.report_to == NO_DESCRIPTOR:
            return False
        from forkfirst.unix import channel  # noqa: PLC0415 - only where a launcher waits

        try:
            channel.send(self._start.report_to, kind, **fields)
        except BrokenPipeError:
            # The launcher is dead, and the session leader is about to end us: nobody has been
            # told that this service runs, so it must not.
            session.leave(errors.StuckError.exit_status)
        return True


def run_program(start: Start, telling: Telling | None = None) -> NoReturn:
    """Create the runtime, import the program, run it, tidy up, leave with its status.

    *telling* is who hears how it goes, if not the launcher.
    """
    import faulthandler  # noqa: PLC0415 - built in; after the fork, because it holds a descriptor

    faulthandler.enable()  # a death by signal leaves its stack in the log
    facts = start.facts
    assert facts is not None  # noqa: S101 - ServeControl comes before RunProgram
    telling = telling or _make_telling(start, facts)
    status = attempt(start, telling, lambda: _run_to_its_end(start, facts, telling))
    telling.left(status)
    leave(start, status)


def _run_to_its_end(start: Start, facts: answers.Facts, telling: Telling) -> int:
    import gc  # noqa: PLC0415 - built in

    module, main, context = _prepare(start, facts, telling)
    # What was loaded until here stays for good. Else the first collection would walk all
    # of it, and copy every page of it that is still shared: 7 ms before the port answers.
    gc.freeze()
    gc.enable()
    status: int = module.run(main, context)
    if status == errors.ProgramFailedError.exit_status:
        telling.ended("raised")
    return status


def attempt(start: Start, telling: Telling, act: Callable[[], int]) -> int:
    """Do *act*, which runs code of the person's; return its status, or that of its failure.

    A failure is reported and shown; nothing is raised.
    """
    facts = start.facts
    assert facts is not None  # noqa: S101 - as in `run_program`
    try:
        return act()
    except errors.ForkfirstError as error:
        if start.report_to == NO_DESCRIPTOR:
            hint = f"\n  {error.hint}" if error.hint else ""
            sys.stderr.write(f"forkfirst: {error}{hint}\n")
        else:
            taking.report_refusal(start.report_to, error)
        _note_failure(facts, error)
        return error.exit_status
    except SystemExit as exit_:
        from forkfirst.runtime import ending  # noqa: PLC0415 - only for an end like this

        return ending.status_of_exit(exit_.code)
    except BaseException as error:  # noqa: BLE001 - what the program's import raised is shown, whole
        _show_exception(error)
        _note_failure(facts, error)
        telling.ended("raised")
        return errors.ProgramFailedError.exit_status


def _note_failure(facts: answers.Facts, error: BaseException) -> None:
    if facts.context is not None:
        facts.context.failure = error


def _make_telling(start: Start, facts: answers.Facts) -> Telling:
    log_to_journal(start)
    if start.manager is None:
        return Telling(start, facts)
    from forkfirst.stages.managed import telling  # noqa: PLC0415 - only where there is one

    return telling.make_telling(start, facts, start.manager)


def log_to_journal(start: Start) -> None:
    """Let the program's records have their levels, where its output goes to the journal."""
    if start.plan.mode != "daemon" and "JOURNAL_STREAM" in os.environ:
        from forkfirst.stages.managed import telling  # noqa: PLC0415 - only under the journal

        telling.log_to_journal(start.plan.service.name)


def _reload_by_signal(start: Start) -> bool:
    from forkfirst.stages.succession import asked  # noqa: PLC0415 - when it is asked for

    return asked.reload_by_signal(start)


def _prepare(
    start: Start, facts: answers.Facts, telling: Telling
) -> tuple[ModuleType, Any, Context]:
    service = start.plan.service
    context_ = program.import_runtime("context")
    context = context_.Context(
        name=service.name,
        listeners=tuple(start.listeners),
        on_ready=telling.ready,
        on_status=telling.status,
        on_stopping=telling.stopping,
        grace_seconds=service.grace_seconds,
        connection=start.connection,
    )
    context.supervised = bool(start.plan.program)
    context.held_outside = start.held_outside
    context.stored_descriptors = start.stored
    places = start.plan.places
    context.directories = {
        "STATE_DIRECTORY": places.state,
        "RUNTIME_DIRECTORY": places.runtime,
        "CACHE_DIRECTORY": places.cache,
        "LOGS_DIRECTORY": places.logs,
    }
    facts.context = context
    telling.begin(context)
    if service.command:
        facts.runtime = "command"
        command = program.import_runtime("command")
        return command, command.make_main(service), context
    module, main, facts.runtime = program.find(start)
    return module, main, context


def serve_control(start: Start) -> None:
    """Install the log, then start the control thread, if there is a socket for it."""
    start.module_path = list(sys.path)
    facts = make_facts(start, has_log=start.log != NO_DESCRIPTOR)
    if start.control == NO_DESCRIPTOR:
        return  # whoever manages it has given it no place for one
    start_server(start, facts)


def make_facts(start: Start, *, has_log: bool) -> answers.Facts:
    """Note what this service knows of itself, and put its output into the log if it has one."""
    facts = start.facts = answers.Facts(
        start.plan, began=time.time(), listeners=tuple(start.listeners)
    )
    if has_log:
        from forkfirst.unix import log_file  # noqa: PLC0415 - loaded already by OpenLog

        service = start.plan.service
        # It is not rotated before READY: a start that fails shows all of it, and leaves nothing.
        facts.log = log_file.Log(path=start.plan.places.log, keep=service.log_keep)
        facts.log.install()
    return facts


def start_server(start: Start, facts: answers.Facts) -> None:
    """Start the control thread.

    Raises:
        SystemRefusedError: No thread can be had.
    """
    from forkfirst.control import server  # noqa: PLC0415 - loaded already by OpenControlSocket

    start.server = server.Server(
        start.control,
        {
            **answers.make_answers(facts),
            "status": lambda _: {**answers.describe(facts), "kept": start.list_kept()},
            **_make_reload_answers(start),
        },
        allowed_uids=frozenset({os.geteuid()}),
    )
    try:
        start.server.start()
    except RuntimeError as error:  # all that Python says of EAGAIN
        message = f"cannot start the control thread: {error}"
        hint = "the limit of processes (ulimit -u, pids.max) or the memory is used up"
        raise errors.SystemRefusedError(message, hint=hint) from error


def _make_reload_answers(
    start: Start,
) -> dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
    def declared(_: Mapping[str, Any]) -> Mapping[str, Any]:
        from forkfirst.stages.succession import asked  # noqa: PLC0415 - when it is asked for

        return asked.describe(start)

    def reload(request: Mapping[str, Any]) -> Mapping[str, Any]:
        from forkfirst.stages.succession import asked  # noqa: PLC0415 - as above

        return asked.take_request(start, request)

    return {"declared": declared, "reload": reload}


# -- what it writes into its log itself ------------------------------------------------------------


def say(text: str) -> None:
    """Write a line into the log. Not through `sys.stderr`: who is stuck may hold its lock."""
    octets = f"forkfirst: {text}\n".encode(errors="backslashreplace")
    try:
        while octets:
            octets = octets[os.write(_STDERR, octets) :]
    except OSError:
        return


def show_stacks(facts: answers.Facts, what: str) -> None:
    """Write where every thread and task is, of a process of which *what* is to be said."""
    say(f"{what}; it waits here:\n{answers.describe_stacks(facts)}")


# -- the end ---------------------------------------------------------------------------------------


def leave(start: Start, status: int) -> NoReturn:
    """Do what the interpreter would do at its exit, tidy up, and leave.

    Not `sys.exit`: that would unwind the launcher's frames below us.
    """
    import atexit  # noqa: PLC0415 - built in
    import threading  # noqa: PLC0415 - the control thread has loaded it

    try:
        threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - what the interpreter calls: joins threads that are no daemons, ends executors
        atexit._run_exitfuncs()  # noqa: SLF001 - the same, for `atexit`
    except BaseException as error:  # noqa: BLE001 - the files must go, whatever a handler raised
        _show_exception(error)
    if start.predecessor is not None:
        start.predecessor.end()
    if start.server is not None:
        start.server.stop()
    context = None if start.facts is None else start.facts.context
    if context is not None and context.is_ready and context.ended_by_itself:
        start.note_end(status)
    start.tidy()
    stdio.flush_standard_streams()
    session.leave(status)


def _show_exception(error: BaseException) -> None:
    from forkfirst.runtime import ending  # noqa: PLC0415 - only for a failure

    ending.print_error(error)
    sys.stderr.flush()


TABLE: Table = {
    steps.ServeControl: lambda _, start: serve_control(start),
    steps.RunProgram: lambda _, start: run_program(start),
}
