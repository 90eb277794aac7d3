"""What whoever manages the supervisor is told: READY, a reload, the end, and that it is alive."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.stages.supervise.loop import Supervisor


def say_ready(supervisor: Supervisor, status: str) -> None:
    """Say that the service is ready, or that its reload is over."""
    if supervisor.start.manager is not None:
        supervisor.start.manager.say_ready(status)


def keep_listeners(supervisor: Supervisor) -> None:
    """Have the listeners kept that are declared now, if the manager keeps any."""
    start, kit = supervisor.start, supervisor.kit
    if start.manager is not None and start.manager.keeps:
        from forkfirst.stages.managed import keeping  # noqa: PLC0415 - only where there is one

        keeping.keep_listeners(start, kit.plan, kit.listeners)


def say_status(supervisor: Supervisor, text: str) -> None:
    """Show *text* to everybody who asks."""
    if supervisor.start.manager is not None:
        supervisor.start.manager.tell(lambda notifier: notifier.status(text))


def say_reloading(supervisor: Supervisor) -> None:
    """Say that a reload begins; `say_ready` must follow."""
    if supervisor.start.manager is not None:
        supervisor.start.manager.tell(lambda notifier: notifier.reloading())


def say_stopping(supervisor: Supervisor) -> None:
    """Say that the stop has begun, and how long it may take."""
    if supervisor.start.manager is not None:
        supervisor.start.manager.say_stopping(supervisor.kit.plan.service.grace_seconds)


def say_failed(supervisor: Supervisor, reason: str, status: int) -> None:
    """Say why the service never became ready."""
    if supervisor.start.manager is not None:
        supervisor.start.manager.say_failed(reason, None, status)


def feed(supervisor: Supervisor) -> float:
    """Feed the manager's watchdog, if there is one; return when to do it again.

    That this loop turns is all that it says: workers that hang are the supervisor's own to replace.
    """
    manager = supervisor.start.manager
    if manager is None or manager.interval is None:
        return float("inf")
    manager.tell(lambda notifier: notifier.watchdog())
    return time.monotonic() + manager.interval
