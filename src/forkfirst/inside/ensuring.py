"""Have a service running, whoever starts it: `ensure_running`, and `ensure_running_async`.

However many clients want it at once, one launcher works at a time: a client takes the start's own
lock before it orders one, and the others look again until the service answers. Even without that
the service's lock would let one start only; but each client would have paid for an interpreter.
"""

from __future__ import annotations

import fcntl
import os
import time

from forkfirst import errors
from forkfirst.inside import asking, spawning, waits
from forkfirst.inside.spawning import Started
from forkfirst.inside.waits import Wait
from forkfirst.plan import places
from forkfirst.stages import probe
from forkfirst.stages.fresh import commission

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from forkfirst.inside.waits import Work
    from forkfirst.service import Service

_ANSWER_SECONDS = 5.0
"""How long a running service may take to answer what is answered at once."""
_BARRED_SECONDS = 5.0
"""How long the start's lock is respected while nothing is seen of a service."""
_FIRST_LOOK, _LAST_LOOK = 0.01, 0.1
"""Seconds between two looks at a service that somebody else starts; each is half as long again."""


def ensure_running(service: Service, *, replace: bool = False, seconds: float = 60.0) -> Started:
    """Return when *service* runs and is ready; start it if it does not run.

    Blocks meanwhile. What a dead one has left is cleared away; one that is stopping is waited for,
    and then started anew. A hundred callers at once, in as many processes, start one.

    Args:
        service: What is wanted. It should have a `version`, if its code ever changes.
        replace: What to do with a running one that calls itself another version: stop it, with its
            grace period, and start this one. If not, that is an error.
        seconds: How long all of it may take.

    Raises:
        VersionSkewError: It runs, in another version, and is not to be replaced.
        StuckError: It was not ready in time, or does not answer.
        ForkfirstError: It could not be started; as `spawn`.
    """
    return waits.run(ensure(Wanted(service, replace=replace, seconds=seconds)))


async def ensure_running_async(
    service: Service, *, replace: bool = False, seconds: float = 60.0
) -> Started:
    """Do what `ensure_running` does on asyncio or trio, and block neither.

    Raises:
        ForkfirstError: As `ensure_running`.
    """
    return await waits.run_async(ensure(Wanted(service, replace=replace, seconds=seconds)))


class Wanted:
    """A service that is wanted, and what is known of it.

    Attributes:
        ordered: What would start it; None if nobody may.
        name: What it is called.
        version: The version that it must have; "" for any.
        replace: Whether another version is replaced.
        deadline: When it is too late, in seconds of `time.monotonic`.
        facts: What it has said of itself last.
        control: Where it answers.
        start_lock: The file whose lock says that somebody is starting it.
        barred_since: When that lock was first found taken; 0.0 if it was not.
    """

    def __init__(
        self, service: Service | None, *, name: str = "", replace: bool = False, seconds: float
    ) -> None:
        self.ordered = None if service is None else spawning.make_order(service)
        self.name = name if self.ordered is None else self.ordered.service.name
        self.version = "" if service is None else service.version
        self.replace = replace
        self.deadline = time.monotonic() + seconds
        self.facts: dict[str, Any] = {}
        self.barred_since = 0.0
        host = probe.read_host(detaching=False)
        found = places.find_places(self.name, host)
        self.control = found.control_socket
        self.start_lock = f"{found.run_directory}/{self.name}.starting"

    def has_another_version(self) -> bool:
        """Whether the one that runs calls itself something else than what is wanted."""
        return bool(self.version) and self.facts.get("version", "") != self.version


def ensure(wanted: Wanted) -> Work[Started]:
    """Have *wanted* running, ready, and in the right version; leave what it says in its facts.

    Raises:
        ForkfirstError: As `ensure_running`.
    """
    look = _FIRST_LOOK
    started: Started | None = None
    wanted.facts = {}
    while True:
        facts = yield from asking.ask_status(wanted.control, _ANSWER_SECONDS)
        if facts is not None and facts["state"] not in ("starting", "stopping"):
            wanted.facts = facts
            if not wanted.has_another_version():
                return started or _describe(wanted)
            _check_may_replace(wanted)
        if time.monotonic() >= wanted.deadline:
            message = f'"{wanted.name}" is not ready'
            state = facts["state"] if facts else "being started"
            raise errors.StuckError(message, hint=f"it is {state}")
        if facts is None or wanted.facts:
            started = yield from _start(wanted)
            wanted.facts = {}
            if started is not None:
                continue
        yield Wait(seconds=look)
        look = min(look * 1.5, _LAST_LOOK)


def _start(wanted: Wanted) -> Work[Started | None]:
    """Start it; None if somebody else does."""
    if wanted.ordered is None:
        message = f'"{wanted.name}" is not running'
        raise errors.NotRunningError(message)
    lock = _take_start_lock(wanted.start_lock)
    if lock is None:
        # A process that another thread of a client forked may keep that client's lock for ever.
        wanted.barred_since = wanted.barred_since or time.monotonic()
        if time.monotonic() < wanted.barred_since + _BARRED_SECONDS:
            return None
        lock = -1
    try:
        replaces = bool(wanted.facts)
        ordered = wanted.ordered
        if replaces:
            ordered = commission.Order(
                service=ordered.service,
                command=ordered.command,
                directory=ordered.directory,
                replaces=True,
            )
        return (yield from spawning.carry_out(ordered))
    except errors.AlreadyRunningError:
        return None  # started by a command, meanwhile, or still going
    finally:
        _release_start_lock(wanted.start_lock, lock)


def _check_may_replace(wanted: Wanted) -> None:
    if wanted.replace:
        return
    has = wanted.facts.get("version", "")
    runs = f"of version {has}" if has else "of no version"
    message = f'"{wanted.name}" is {runs}, not {wanted.version}'
    # Not a restart: that would give the very command again, and the version is in it.
    hint = f"forkfirst stop {wanted.name}, and the next call starts the other; or replace=True"
    raise errors.VersionSkewError(message, hint=hint)


def _describe(wanted: Wanted) -> Started:
    facts = wanted.facts
    return Started(
        name=wanted.name,
        pid=int(facts["pid"]),
        status=str(facts["status"]),
        version=str(facts["version"]),
        is_new=False,
        log=str(facts["log"]),
    )


def _take_start_lock(path: str) -> int | None:
    """Return the lock's descriptor; None if another client has it.

    Only saves work, so whatever goes wrong with it counts as success: the service has a lock.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _release_start_lock(path: str, fd: int) -> None:
    if fd < 0:
        return
    from contextlib import suppress  # noqa: PLC0415 - nothing before needs it

    with suppress(OSError):
        os.unlink(path)  # whoever comes next makes a new one; two at once would be no harm
    os.close(fd)
