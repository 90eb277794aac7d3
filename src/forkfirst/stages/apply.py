"""The one table: step to function. Each function does what its step says, and nothing else.

Here are those of the process that runs the program. A step that says so (`taken_in`) has its
function in another module, which is loaded when it is taken: what prepares a start is in
`preparing`. A test replaces entries of the table; nothing replaces `os`.
"""

from __future__ import annotations

import os
import sys

from forkfirst.plan import steps
from forkfirst.stages.taking import NO_DESCRIPTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table


def _reset_signal_handlers(_: steps.ResetSignalHandlers, __: Start) -> None:
    from forkfirst.unix import signals  # noqa: PLC0415 - the launcher needs none of it

    signals.reset_handlers()


def _unblock_signals(_: steps.UnblockSignals, __: Start) -> None:
    from forkfirst.unix import signals  # noqa: PLC0415 - as above

    signals.unblock_all()


_OF_THE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Variables that `managed.telling` takes out when it has read them."""


def _clean_environment(step: steps.CleanEnvironment, start: Start) -> None:
    for name in step.remove:
        os.environ.pop(name, None)
    start.environment = dict(os.environ)
    for name in _OF_THE_MANAGER:
        start.environment.pop(name, None)
    declared = dict(start.plan.service.environment)
    for name, value in step.assign:
        os.environ[name] = value
        if name not in declared:  # who the user is, once this has become another
            start.environment[name] = value


def _set_umask(step: steps.SetUmask, _: Start) -> None:
    os.umask(step.umask)


def _change_directory(step: steps.ChangeDirectory, _: Start) -> None:
    os.chdir(step.path)


def _redirect_standard_streams(_: steps.RedirectStandardStreams, start: Start) -> None:
    from forkfirst.unix import stdio  # noqa: PLC0415 - as above

    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    stdio.redirect(nothing if start.plan.mode == "daemon" else 0, start.log, start.log)
    os.close(nothing)
    os.close(start.log)
    start.log = 1  # and 2: another descriptor would hold the file when its name is another's
    if sys.stdin is None:  # it was closed when we were started, so Python has made no stream of it
        stream = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays
        for name in ("stdin", "__stdin__"):
            setattr(sys, name, stream)


def _close_descriptors(_: steps.CloseDescriptors, start: Start) -> None:
    from forkfirst.unix import descriptors  # noqa: PLC0415 - as above

    kept = (
        fd for fd in (*start.descriptors(), start.report_to) if fd not in (start.log, NO_DESCRIPTOR)
    )
    descriptors.close_all_except(kept)


def _write_pid(_: steps.WritePid, start: Start) -> None:
    if start.pid_file is not None:
        start.pid_file.rewrite(os.getpid())


class _Table(dict[type[steps.Step], "Callable[[Any, Any], None]"]):
    """Also finds the steps that few services have, in the module that takes them."""

    def __missing__(self, kind: type[steps.Step]) -> Callable[[Any, Any], None]:
        room = __import__(f"forkfirst.stages.{kind.taken_in}", fromlist=["TABLE"])
        function: Callable[[Any, Any], None] = room.TABLE[kind]
        return function


_ENTRIES: Table = {
    steps.ResetSignalHandlers: _reset_signal_handlers,
    steps.UnblockSignals: _unblock_signals,
    steps.CleanEnvironment: _clean_environment,
    steps.SetUmask: _set_umask,
    steps.ChangeDirectory: _change_directory,
    steps.RedirectStandardStreams: _redirect_standard_streams,
    steps.CloseDescriptors: _close_descriptors,
    steps.WritePid: _write_pid,
}
TABLE: Table = _Table(_ENTRIES)


def with_changes(table: Table) -> Table:
    """Return this table with the entries of *table* in the place of its own."""
    return _Table({**TABLE, **table})
