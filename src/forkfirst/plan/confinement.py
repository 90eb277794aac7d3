"""The steps that take power away, as data. Loaded only for a service that asks for one of them.

The order among them is the kernel's, and stands in `order`: each makes the next one impossible, or
needs what the next one takes.
"""

from __future__ import annotations

from forkfirst.plan.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Identity


class CheckReadable(Step):
    """Refuse if the interpreter, a library or the program is closed to the new user."""

    manual = "path_resolution(7)"
    taken_in = "confining"
    identity: Identity
    target: str
    command: str
    directory: str
    root: str

    def describe(self) -> str:
        what = self.command or f"the interpreter, its library and {self.target}"
        return f"check that {self.identity.name} can read {what}"


class SetLimits(Step):
    """Set resource limits, while they may still be raised."""

    manual = "setrlimit(2)"
    taken_in = "confining"
    limits: tuple[str, ...]

    def describe(self) -> str:
        return "set limits " + ", ".join(self.limits)


class LoadModules(Step):
    """Import whatever the service may need later: the new user may not be able to read it."""

    manual = "forkfirst(1)"
    taken_in = "confining"
    runtime: str

    def describe(self) -> str:
        return "import now what answers, tracebacks and codecs will need later"


class ChangeRoot(Step):
    """Make a directory the root, and the working directory."""

    manual = "chroot(2)"
    taken_in = "confining"
    sysv = 13
    path: str

    def describe(self) -> str:
        return f"make {self.path} the root directory"


class DropPrivileges(Step):
    """Become another user: groups, group, user, in that order, all three ids of each."""

    manual = "setresuid(2)"
    taken_in = "confining"
    sysv = 13
    identity: Identity

    def describe(self) -> str:
        groups = ", ".join(map(str, self.identity.groups))
        who = f"{self.identity.name} (uid {self.identity.uid}, gid {self.identity.gid})"
        return f"become {who}, in groups {groups} and no other"


class ClearCapabilities(Step):
    """Leave no capability in any set but those that were asked for."""

    manual = "capabilities(7)"
    taken_in = "confining"
    sysv = 13
    keep: tuple[str, ...]

    def describe(self) -> str:
        kept = f"all capabilities but {', '.join(self.keep)}" if self.keep else "every capability"
        return f"give up {kept}, in every set"


class ForbidNewPrivileges(Step):
    """Let nothing that is executed ever give privileges again."""

    manual = "PR_SET_NO_NEW_PRIVS(2const)"
    taken_in = "confining"
    sysv = 13

    def describe(self) -> str:
        return "forbid new privileges: set-user-id programs give none"


class SetNotDumpable(Step):
    """Let other processes of the new user not read this one's memory."""

    manual = "PR_SET_DUMPABLE(2const)"
    taken_in = "confining"
    sysv = 13

    def describe(self) -> str:
        return "close the memory to other processes of that user"


class VerifyDropped(Step):
    """Read from the kernel what is left, and try to become root again; refuse what is left."""

    manual = "proc_pid_status(5)"
    taken_in = "confining"
    sysv = 13
    identity: Identity
    keep: tuple[str, ...]
    no_new_privileges: bool

    def describe(self) -> str:
        return "verify in /proc/self/status, and by trying, that nothing can be regained"


def plan_after_exec(runtime: str) -> tuple[Step, ...]:
    """Return what a service that became another user must do again: an exec forgets it.

    Everything else that was taken away stays so: users, groups, capabilities, limits.
    """
    return LoadModules(runtime=runtime), SetNotDumpable()
