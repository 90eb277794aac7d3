"""Start a service from a program that runs: `spawn`, and `spawn_async` where a loop must go on.

The program is not forked, whatever is alive in it: see `stages.fresh.commission`.
"""

from __future__ import annotations

import os
import sys

from forkfirst.inside import waits
from forkfirst.service import declare_by_name
from forkfirst.stages.fresh import commission
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkfirst.inside.waits import Work
    from forkfirst.plan.service import Declaration
    from forkfirst.service import Service

_LAST_SECONDS = 5.0
"""What a launcher that gives up has beside the grace period, before it is killed."""

_PATHS = ("chdir", "env_file", "log", "pid_file", "chroot")
_SWITCHES = {
    ("no_new_privileges", True): "--no-new-privileges",
    ("no_new_privileges", False): "--allow-new-privileges",
}


class Started(Value):
    """A service that runs and is ready.

    Attributes:
        name: What it is called.
        pid: Its process.
        status: What it said of itself.
        version: What its program calls its own code, or "".
        is_new: Whether this very call has started it.
        seconds: How long that took, if it did.
        log: Where its output goes.
    """

    name: str
    pid: int
    status: str = ""
    version: str = ""
    is_new: bool = True
    seconds: float = 0.0
    log: str = ""


def spawn(service: Service) -> Started:
    """Start *service* in the background, and return when it is ready; block meanwhile.

    Safe in any program, whatever runs in it: it is not forked. A fresh interpreter does the start,
    with this one's `sys.path`, flags and environment, and imports the service's program there. So
    that must be a function at the top of a module or a file, or be named by a text.

    Raises:
        AlreadyRunningError: It runs already, or is being started.
        TargetError: A fresh interpreter cannot import the program; the text says why.
        ForkfirstError: It does not run, and nothing is left of it. The program's own output is a
            note of the exception.

    Source: posix_spawn(3).
    """
    return waits.run(carry_out(make_order(service)))


async def spawn_async(service: Service) -> Started:
    """Do what `spawn` does on asyncio or trio, and block neither.

    A start that is cancelled before the service is ready is taken back: when this returns, nothing
    is left of it.

    Raises:
        ForkfirstError: As `spawn`.
    """
    return await waits.run_async(carry_out(make_order(service)))


def make_order(service: Service, *, replaces: bool = False) -> commission.Order:
    """Return what has to be ordered for *service* to run.

    Raises:
        ForkfirstError: It cannot be had in a fresh interpreter.
    """
    declared = declare_by_name(service)
    return commission.Order(
        service=declared,
        command=(sys.executable, "-m", "forkfirst", "start", *_list_words(service, declared)),
        directory=declared.source_directory,
        replaces=replaces,
    )


def carry_out(ordered: commission.Order) -> Work[Started]:
    """Have the order carried out, and return what came of it.

    Raises:
        ForkfirstError: The service does not run.
    """
    begun = commission.begin(ordered)
    try:
        yield from _await_end(begun, None)
    except GeneratorExit:
        raise  # nobody waits any more: `close` ends it
    except BaseException:  # interrupted or cancelled: take back what was begun
        begun.give_up()
        yield from _await_end(begun, ordered.service.grace_seconds + _LAST_SECONDS)
        raise
    finally:
        begun.close()
    known = begun.read_outcome()
    return Started(
        name=ordered.service.name,
        pid=int(known["pid"]),
        status=str(known["status"]),
        version=ordered.service.version,
        seconds=float(known["seconds"]),
        log=str(known["log"]),
    )


def _await_end(begun: commission.Commission, seconds: float | None) -> Work[None]:
    while not begun.has_ended():
        came = yield waits.Wait(fd=begun.report_from, seconds=seconds)
        if not came:
            return


def _list_words(service: Service, declared: Declaration) -> Iterator[str]:
    """Yield the arguments of `forkfirst start` that declare the same service."""
    yield declared.target
    yield from ("--name", declared.name)
    for listener in declared.listeners:
        yield from ("--listen", str(listener))
    for field, value in zip(type(service).__fields__, service, strict=True):
        if field in ("program", "name", "listen") or value == type(service).__defaults__[field]:
            continue
        flag = f"--{field.replace('_', '-')}"
        if field == "env":
            for name, text in value.items():
                yield from (flag, f"{name}={text}")
        elif isinstance(value, bool):
            yield _SWITCHES.get((field, value), flag)
        elif isinstance(value, tuple):
            for each in value:
                yield from (flag, str(each))
        elif field == "umask":
            yield from (flag, f"{value:o}")
        else:
            yield from (flag, os.path.abspath(value) if field in _PATHS else str(value))
