"""The first moments of a fresh interpreter: what other daemons do between a fork and an exec.

`interpreter.execute` starts it, and says in its arguments what it is to be. It has one thread, no
loop, and inherits only what is closed here.
"""

from __future__ import annotations

import gc
import os
import sys

from forkfirst.stages.fork_first import Forked
from forkfirst.stages.fresh import interpreter
from forkfirst.unix import descriptors, session, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def main() -> NoReturn:
    """Be what the arguments say; leave by `_exit`, always."""
    gc.disable()  # as `forkfirst.__main__` does; the service turns it on again
    _restore_path()
    stdio.hold_standard_descriptors()
    ours = (interpreter.REPORT_TO, interpreter.RECEIVER)
    descriptors.close_all_except(ours)
    for fd in set(ours).intersection(descriptors.list_open()):
        os.set_inheritable(fd, False)  # noqa: FBT003 - its only argument
    role, *words = sys.argv[1:]
    sys.argv[:] = ["forkfirst"]  # the program shall not find ours
    _ROLES[role](*words)
    session.leave(0)


def lead(name: str, module: str) -> None:
    """Be the session leader of a start that forks nothing; see `stages.leader`."""
    from forkfirst.plan import spawning  # noqa: PLC0415 - only in this role
    from forkfirst.stages import fork_first  # noqa: PLC0415 - as above

    if os.getsid(0) != os.getpid():  # where posix_spawn(3) cannot do it
        session.start_session()
    table = {**fork_first.TABLE, **interpreter.TABLE}
    fork_first.lead(_take_ends(), module, table, spawning.plan_leader(name, module))


def serve(_: str, module: str) -> None:
    """Be the service of such a start; see `stages.child`."""
    from forkfirst.stages import apply, child  # noqa: PLC0415 - only in this role

    child.wait_for_plan(_take_ends(), module, apply.TABLE)


def succeed(module: str) -> None:
    """Be the successor of a running service, or rather watch over it; see `succession`."""
    from forkfirst.stages.succession import successor  # noqa: PLC0415 - only in this role

    successor.lead(_take_ends(), module)


def start(_: str) -> None:
    """Be the launcher for a program that spawns; see `commission`."""
    from forkfirst.stages.fresh import commission  # noqa: PLC0415 - only in this role

    if os.getsid(0) != os.getpid():
        session.start_session()
    commission.carry_out(interpreter.REPORT_TO, interpreter.RECEIVER)


def examine(target: str, directory: str) -> None:
    """Import a program under watch, for `check`; see `examination`."""
    from forkfirst.stages.fresh import examination  # noqa: PLC0415 - only in this role

    examination.examine(target, directory, interpreter.REPORT_TO)


_ROLES: dict[str, Callable[..., None]] = {
    "lead": lead,
    "serve": serve,
    "succeed": succeed,
    "start": start,
    "examine": examine,
}


def _take_ends() -> Forked:
    forked = Forked()
    forked.report_to, forked.receiver = interpreter.REPORT_TO, interpreter.RECEIVER
    return forked


def _restore_path() -> None:
    """Have the path of modules and the environment that the one has who executed this."""
    environ = os.environ
    sys.path[:] = environ.pop(interpreter.PATH, "").split(os.pathsep)
    before = environ.pop(interpreter.PATH_BEFORE, None)
    if before is not None:
        environ[interpreter.PATH] = before
