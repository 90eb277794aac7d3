"""The vocabulary of effects: every step that a start can take, as data.

A step says what will be done and on what, and names the manual page that defines it. It does
nothing; `stages.apply` has the one table from step to function, and `order` the one order.
"""

from __future__ import annotations

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class Step(Value):
    """One effect. Its class names the kind, its fields the particulars.

    Attributes:
        manual: The manual page, or the protocol, that says what the step means.
        sysv: The number of the step in daemon(7)'s list for SysV daemons; 0 if it has none.
        taken_in: The module of `stages` whose table has its function.
    """

    manual: ClassVar[str] = ""
    taken_in: ClassVar[str] = "apply"
    sysv: ClassVar[int] = 0

    def describe(self) -> str:
        """Say in one line what the step does."""
        raise NotImplementedError


# -- in the launcher, until the fork -----------------------------------------------------------


class HoldStandardDescriptors(Step):
    """Open /dev/null on each of 0, 1, 2 that is closed, so that nothing else lands there."""

    manual = "open(2)"
    taken_in = "preparing"

    def describe(self) -> str:
        return "hold descriptors 0, 1 and 2, so that no file of ours becomes one of them"


class JudgeFork(Step):
    """Refuse to fork if a runtime, a thread or anything else that a child would lack is alive."""

    manual = "fork(2)"
    taken_in = "fork_first"

    def describe(self) -> str:
        return "check that one thread, no event loop and no epoll exist here"


class OpenReport(Step):
    """Make the pipe through which the service tells the launcher that it is ready."""

    manual = "pipe(2)"
    taken_in = "fork_first"
    sysv = 14

    def describe(self) -> str:
        return "make the pipe on which the service reports READY, or its whole error"


class Fork(Step):
    """Flush the standard streams once, then fork."""

    manual = "fork(2)"
    taken_in = "fork_first"
    sysv = 5

    def describe(self) -> str:
        return "flush the standard streams, then fork: before there is anything to break"


# -- in the session leader -----------------------------------------------------------------------


class StartSession(Step):
    """Leave the terminal: a new session and process group."""

    manual = "setsid(2)"
    taken_in = "fork_first"
    sysv = 6

    def describe(self) -> str:
        return "start a new session, without a terminal"


class ForkAgain(Step):
    """Fork again, so that the service is no session leader and can never gain a terminal."""

    manual = "fork(2)"
    taken_in = "fork_first"
    sysv = 7

    def describe(self) -> str:
        return "fork again; the session leader watches the service until READY, then it is gone"


# -- in the service, at once ---------------------------------------------------------------------


class ImportRuntimeModule(Step):
    """Import asyncio while the launcher still plans: on another processor, at the same time.

    The module only; the runtime is created when the program is run.
    """

    manual = "forkfirst(1)"
    taken_in = "fork_first"
    module: str

    def describe(self) -> str:
        return f"import module {self.module}, while the launcher takes its steps"


# -- in the service ------------------------------------------------------------------------------


class ResetSignalHandlers(Step):
    """Give every signal its default action."""

    manual = "signal(7)"
    sysv = 2

    def describe(self) -> str:
        return "reset every signal's action"


class UnblockSignals(Step):
    """Empty the signal mask."""

    manual = "sigprocmask(2)"
    sysv = 3

    def describe(self) -> str:
        return "unblock every signal"


class CleanEnvironment(Step):
    """Remove what was addressed to another process, set what the person asked for."""

    manual = "environ(7)"
    sysv = 4
    remove: tuple[str, ...]
    assign: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        parts = []
        if self.remove:
            parts.append("remove " + ", ".join(self.remove))
        if self.assign:
            parts.append("set " + ", ".join(name for name, _ in self.assign))
        return "clean the environment: " + (", ".join(parts) or "nothing to remove or set")


class SetUmask(Step):
    """Set the bits that new files never have."""

    manual = "umask(2)"
    sysv = 10
    umask: int

    def describe(self) -> str:
        return f"set umask {self.umask:04o}"


class ChangeDirectory(Step):
    """Go where the program runs."""

    manual = "chdir(2)"
    sysv = 11
    path: str

    def describe(self) -> str:
        return f"change directory to {self.path}"


class RedirectStandardStreams(Step):
    """/dev/null on 0, the log on 1 and 2."""

    manual = "dup2(2)"
    sysv = 9
    log: str

    def describe(self) -> str:
        return f"put /dev/null on descriptor 0, {self.log} on 1 and 2"


class CloseDescriptors(Step):
    """Close every descriptor above 2 that is not the service's."""

    manual = "close_range(2)"
    sysv = 1

    def describe(self) -> str:
        return "close every descriptor above 2 except listeners, lock, control socket and report"


class WritePid(Step):
    """Put the service's own pid into the pid file that is locked already."""

    manual = "pwrite(2)"
    sysv = 12
    path: str

    def describe(self) -> str:
        return f"write the pid into {self.path}"


class ServeControl(Step):
    """Start the one small thread that answers on the control socket."""

    manual = "pthreads(7)"
    taken_in = "child"

    def describe(self) -> str:
        return "start the control thread"


class RunProgram(Step):
    """Create the runtime, import the program, run it; report READY when it is."""

    manual = "forkfirst(1)"
    taken_in = "child"
    sysv = 14
    target: str
    command: tuple[str, ...]
    runtime: str
    server: str = ""

    def describe(self) -> str:
        if self.command:
            return "run " + " ".join(self.command) + "; report READY"
        if self.server:
            return f"import {self.target} and serve it with {self.server}; report READY"
        how = "" if self.runtime == "none" else f" with runtime {self.runtime}"
        return f"import and run {self.target}{how}; report READY"


class Supervise(Step):
    """Be the supervisor: fork each worker, replace it when it ends, answer; have no runtime."""

    manual = "poll(2)"
    taken_in = "supervise.loop"
    sysv = 14
    workers: int

    def describe(self) -> str:
        return f"keep {self.workers} workers alive, each forked from here; report READY"
