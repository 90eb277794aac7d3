"""The steps of the launcher: what the service will need is checked, locked and opened.

Apart from `steps`, which has those of the processes that it makes.
"""

from __future__ import annotations

from forkfirst.plan.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Identity
    from forkfirst.plan.listener import Listener


class CheckTarget(Step):
    """Look whether the program is there at all, without importing it."""

    manual = "stat(2)"
    taken_in = "preparing"
    target: str
    directory: str

    def describe(self) -> str:
        return f"check that {self.target} exists, without importing it"


class CheckServer(Step):
    """Look whether the server of an application is installed, without importing it."""

    manual = "forkfirst(1)"
    taken_in = "preparing"
    server: str

    def describe(self) -> str:
        return f"check that {self.server} is installed, without importing it"


class CheckCommand(Step):
    """Look whether the command can be executed at all."""

    manual = "execvp(3)"
    taken_in = "preparing"
    command: str
    root: str = ""

    def describe(self) -> str:
        where = f" below {self.root}" if self.root else ""
        return f"check that {self.command} can be executed{where}"


class MakeDirectory(Step):
    """Make a directory and its parents; refuse one that somebody else controls."""

    manual = "mkdir(2)"
    taken_in = "preparing"
    path: str
    mode: int
    private: bool
    owner: Identity | None = None

    def describe(self) -> str:
        whose = "ours" if self.owner is None else self.owner.name + "'s"
        alone = f", and check that it is {whose} alone" if self.private else ""
        return f"make directory {self.path} with mode {self.mode:04o}{alone}"


class LockPidFile(Step):
    """Take the lock that says who runs: `flock` on the pid file."""

    manual = "flock(2)"
    taken_in = "preparing"
    sysv = 12
    path: str

    def describe(self) -> str:
        return f"lock pid file {self.path}, or say who holds it"


class OpenLog(Step):
    """Open the log for appending."""

    manual = "open(2)"
    taken_in = "preparing"
    path: str
    mode: int = 0o640

    def describe(self) -> str:
        return f"open log {self.path} for appending, mode {self.mode:04o}"


class OpenListener(Step):
    """Bind and listen; the socket outlives every process that serves it.

    Attributes:
        spread: On how many sockets, one for each worker; 0 is one that all share.
    """

    manual = "listen(2)"
    taken_in = "preparing"
    listener: Listener
    spread: int = 0

    def describe(self) -> str:
        several = f" with {self.spread} sockets" if self.spread > 1 else " with a socket"
        return f"listen on {self.listener}" + (
            f"{several}, one for each worker" if self.spread else ""
        )


class OpenControlSocket(Step):
    """Bind the socket on which the running service answers `status`, `stacks`, …."""

    manual = "unix(7)"
    taken_in = "preparing"
    path: str

    def describe(self) -> str:
        return f"open control socket {self.path}, mode 0600"


class KeepRecord(Step):
    """Write down how this service was started, for `restart` and for `stop` by name."""

    manual = "rename(2)"
    taken_in = "preparing"
    path: str

    def describe(self) -> str:
        return f"note in {self.path} how the service was started"


class HandOver(Step):
    """Pass the plan, and every descriptor of the service, to the process that waits."""

    manual = "unix(7)"
    taken_in = "handover"

    def describe(self) -> str:
        return "pass the plan, the lock, the log and every listener to the service"


class AwaitReady(Step):
    """Wait for READY; on anything else end the service and undo every step."""

    manual = "poll(2)"
    taken_in = "launch"
    sysv = 15
    seconds: float

    def describe(self) -> str:
        return f"wait for READY, at most {self.seconds:g} s, then exit 0; else undo it all"
