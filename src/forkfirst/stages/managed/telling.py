"""What a manager is told, at the true moments: by datagrams to NOTIFY_SOCKET, or by a newline.

Nothing here ends a service: a manager that cannot be told is complained of, once, in the log.
"""

from __future__ import annotations

import fcntl
import os
import sys

from forkfirst import errors
from forkfirst.plan import keeping, managing
from forkfirst.stages import child
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.systemd import (
    journal,
    notify,
    notify_delivery,  # noqa: F401 - now: later this user may not be able to read it
    watchdog,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from forkfirst.runtime.context import Context
    from forkfirst.stages.answers import Facts
    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table

_PATIENCE = 1.0
"""Seconds that one message may wait for room in the manager's queue."""

_CLEAN_UP_SECONDS = 2.0
"""What a stop may take beyond its grace period: see `runtime.stopping`, and our own tidying."""

_RELAYED = frozenset({
    *("WATCHDOG", "WATCHDOG_USEC", "RELOADING", "MONOTONIC_USEC", "STOPPING", "ERRNO", "BUSERROR"),
    *("EXTEND_TIMEOUT_USEC", "EXIT_STATUS", "FDSTORE", "FDNAME", "FDPOLL", "FDSTOREREMOVE"),
})  # fmt: skip
"""What a command may say through us. Who its main process is, and who may speak, is ours to say."""


class Manager:
    """Who manages this service, and how it is told.

    Attributes:
        notifier: For messages, or None where NOTIFY_SOCKET is not set.
        interval: Seconds between two feedings of the watchdog, or None where there is none.
        descriptor: Where a newline says READY, or `NO_DESCRIPTOR`.
        follows: Whether the service may become another process: systemd is told of it and follows;
            others only wait for the process that they started.
        keeps: How many descriptors it keeps while the service is not there; 0 if it keeps none.
        kept: What it keeps of the service's own listeners: their names and paths, by what they are
            called there.
    """

    def __init__(self) -> None:
        self.notifier: notify.Notifier | None = None
        self.interval: float | None = None
        self.descriptor = NO_DESCRIPTOR
        self.follows = False
        self.keeps = 0
        self.kept: dict[str, tuple[str, str]] = {}
        self._complained = False

    def hand_over(self) -> dict[str, Any]:
        """Return what `take_over` makes the same of; it must have said READY."""
        notifier = self.notifier
        return {
            "address": "" if notifier is None else notifier.address,
            "as_pid": None if notifier is None else notifier.pid,
            "interval": self.interval,
            "complained": self._complained,
            "keeps": self.keeps,
            "kept": self.kept,
        }

    @classmethod
    def take_over(cls, data: Mapping[str, Any]) -> Manager:
        """Return the manager of a service that another process of this pid was."""
        manager = cls()
        if data["address"]:
            manager.notifier = notify.Notifier(data["address"], timeout=_PATIENCE)
            manager.notifier.pid = data["as_pid"]
        manager.interval = data["interval"]
        manager._complained = data["complained"]
        manager.keeps = data.get("keeps", 0)  # none of a version that did not know of it
        kept = data.get("kept", {})
        manager.kept = {name: (listener, path) for name, (listener, path) in kept.items()}
        return manager

    @property
    def kept_paths(self) -> set[str]:
        """The paths of unix sockets that it keeps."""
        return {path for _, path in self.kept.values() if path}

    @property
    def kept_listeners(self) -> list[str]:
        """The names of the listeners that it keeps."""
        return [name for name, _ in self.kept.values()]

    def tell(self, say: Callable[[notify.Notifier], object]) -> bool:
        """Call *say* with the notifier, if there is one; return whether the manager has it."""
        if self.notifier is None:
            return False
        try:
            say(self.notifier)
        except errors.ForkfirstError as error:
            if not self._complained:
                self._complained = True
                complain(str(error))
            return False
        return True

    def say_ready(self, status: str) -> None:
        """Say READY, in each language that somebody listens to."""
        self.tell(lambda notifier: notifier.ready(status or None))
        if self.descriptor != NO_DESCRIPTOR:
            descriptor, self.descriptor = self.descriptor, NO_DESCRIPTOR
            try:
                os.write(descriptor, b"\n")
            except OSError as error:
                complain(f"cannot say READY on the notification descriptor: {error.strerror}")
            os.close(descriptor)

    def say_stopping(self, grace_seconds: float) -> None:
        """Say that the stop has begun, and how long it may take. A signal handler may call it."""
        self.tell(lambda notifier: notifier.stopping())
        self.tell(lambda notifier: notifier.extend_timeout(grace_seconds + _CLEAN_UP_SECONDS))

    def say_succeeded(self, pid: int, pidfd: int | None, status: str) -> None:
        """Say that *pid* is the service from now on, and ready; then say nothing more.

        Returns when the manager has read it: after that this process may end, and is not missed.
        """
        identity = notify.identify(pidfd)
        self.tell(lambda notifier: notifier.succeeded(pid, identity, status or "reloaded"))
        self.tell(lambda notifier: notifier.barrier())
        self.notifier = None

    def say_failed(self, reason: str, error: BaseException | None, status: int) -> None:
        """Say why the service fails, with its errno if it has one, and its exit status."""
        cause = getattr(error, "__cause__", None)
        number = getattr(error, "errno", None) or getattr(cause, "errno", None)
        self.tell(lambda notifier: notifier.status(f"failed: {reason}"))
        if isinstance(number, int):
            self.tell(lambda notifier: notifier.errno(number))
        self.tell(lambda notifier: notifier.exit_status(status))


class ManagedTelling(child.Telling):
    """Tells the manager as well; also what a `Context` may want of it: see `runtime.outside`."""

    def __init__(self, start: Start, facts: Facts, manager: Manager) -> None:
        super().__init__(start, facts)
        self._manager = manager
        self._service = start.plan.service
        self.fed_by_command = False
        self.kept = [(name, os.dup(fd)) for name, fd in start.stored]

    def begin(self, context: Context) -> None:
        """Watch over the program, and hear of the reloads that its manager wants."""
        super().begin(context)
        context.outside = self
        context.relay = self.relay
        if not self._service.command:
            context.take_reloads()
        if self._manager.interval is not None:
            from forkfirst.stages.managed import watching  # noqa: PLC0415 - only with a watchdog

            watching.Watching(self._manager, self._manager.interval, self._facts, self).start()

    def ready(self, status: str) -> None:
        """Say READY to everybody."""
        super().ready(status)
        self._manager.say_ready(status)

    def status(self, text: str) -> None:
        """Show *text* to everybody who asks."""
        super().status(text)
        self._manager.tell(lambda notifier: notifier.status(text))

    def stopping(self) -> None:
        """Say at once that it stops, and for how long it may."""
        super().stopping()
        self._manager.say_stopping(self._service.grace_seconds)

    def left(self, status: int) -> None:
        """Say with what status it ends, if it failed, and by what."""
        if status:
            context = self._facts.context
            failure = context.failure if context is not None else None
            self._manager.say_failed(_describe(failure, status), failure, status)

    # -- for the context ---------------------------------------------------------------------------

    def reloading(self) -> None:
        """Say that a reload begins, now. A signal handler may call it."""
        self._facts.state = "reloading"
        self._manager.tell(lambda notifier: notifier.reloading())

    def reloaded(self, status: str = "") -> None:
        """Say that the reload is done."""
        self._facts.state = "ready"
        self._manager.tell(lambda notifier: notifier.ready(status or None))

    def keep(self, fd: int, name: str) -> bool:
        """Have the manager keep *fd* for the next start; return whether it was sent."""
        check_name(name)
        if os.environ.get("FDSTORE") == "0":
            return False
        is_kept = self._manager.tell(lambda notifier: notifier.store([fd], name))
        if is_kept:
            self.kept.append((name, os.dup(fd)))
        return is_kept

    def forget(self, name: str) -> bool:
        """Have the manager close what it keeps as *name*."""
        check_name(name)
        for one in [one for one in self.kept if one[0] == name]:
            self.kept.remove(one)
            os.close(one[1])
        return self._manager.tell(lambda notifier: notifier.remove_stored(name))

    def relay(self, fields: Mapping[str, str], fds: Sequence[int], *, was_ready: bool) -> None:
        """Pass on what a command said: in our name, for it is not the manager's main process."""
        said = [f"{name}={value}" for name, value in fields.items() if name in _RELAYED]
        if was_ready and fields.get("READY") == "1":  # the end of a reload
            said.append("READY=1")
        self.fed_by_command = self.fed_by_command or "WATCHDOG" in fields
        if said and not keeping.is_reserved(fields.get("FDNAME", "")):
            self._manager.tell(lambda notifier: notifier.send("\n".join(said), fds))


def make_telling(start: Start, facts: Facts, manager: Manager) -> ManagedTelling:
    """Return what tells *manager*, and the launcher if there is one."""
    return ManagedTelling(start, facts, manager)


def check_name(name: str) -> None:
    """Refuse *name* if the program cannot have anything stored by it.

    Raises:
        UsageError: It is no name, or one of ours.
    """
    notify.check_name(name)
    if keeping.is_reserved(name):
        message = f"{name!r} cannot name a descriptor of the program's"
        raise errors.UsageError(message, hint=f"names that begin with {keeping.RESERVED} are ours")


def tell_failure(start: Start, error: errors.ForkfirstError) -> None:
    """Tell whoever manages this start that it failed, before there was a program."""
    manager = start.manager
    if manager is None:
        manager = Manager()
        manager.notifier = notify.Notifier.from_environment(os.environ, timeout=_PATIENCE)
    manager.say_failed(str(error), error, error.exit_status)


def log_to_journal(name: str) -> None:
    """Let records of a program that configures no logging have their levels in the journal.

    That is what `logging` writes to stderr by itself: warnings and above. Who configures handlers
    has chosen, and none of this is seen then; `Context.journal_handler` is there to be chosen.
    """
    if journal.is_journal(2, os.environ):
        import logging  # noqa: PLC0415 - only under the journal

        handler = journal.make_handler(name)
        handler.setLevel(logging.WARNING)
        logging.lastResort = handler


def complain(text: str) -> None:
    """Write a line to the log; one that cannot be written is lost."""
    try:
        sys.stderr.write(f"forkfirst: {text}\n")
    except OSError:
        return


def _describe(failure: BaseException | None, status: int) -> str:
    if failure is None:
        return f"exit status {status}"
    return f"{type(failure).__name__}: {failure}"


# -- the steps -------------------------------------------------------------------------------------


def _hold_readiness(step: managing.HoldReadiness, start: Start) -> None:
    try:
        held = fcntl.fcntl(step.fd, fcntl.F_DUPFD_CLOEXEC, step.fd + 1)
    except OSError as error:
        if not step.needed:
            return  # it is the command's alone, and made for it
        message = f"cannot say READY on descriptor {step.fd}: it is not open"
        hint = "whoever supervises this must open it: s6 does, with a file notification-fd"
        raise errors.ConfigError(message, hint=hint) from error
    os.close(step.fd)
    _manager_of(start).descriptor = held


def _tell_manager(step: managing.TellManager, start: Start) -> None:
    manager = _manager_of(start)
    manager.notifier = notify.Notifier.from_environment(os.environ, timeout=_PATIENCE)
    if manager.notifier is not None:
        manager.notifier.pid = step.as_pid or None
    manager.interval = watchdog.read_watchdog(os.environ, step.as_pid or os.getpid())
    notify.remove_variable(os.environ)
    for name in watchdog.VARIABLES:
        os.environ.pop(name, None)
    if start.plan.service.command and manager.interval is not None:
        # Without a pid, so that the command feels addressed; what it says is relayed.
        os.environ["WATCHDOG_USEC"] = str(int(manager.interval * 2_000_000))
    manager.tell(lambda notifier: notifier.extend_timeout(step.ready_seconds))
    manager.follows = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def _manager_of(start: Start) -> Manager:
    if start.manager is None:
        start.manager = Manager()
    return start.manager


TABLE: Table = {
    managing.HoldReadiness: _hold_readiness,
    managing.TellManager: _tell_manager,
}
