"""The steps by which a manager is told, as data. Loaded only where somebody wants to be told."""

from __future__ import annotations

from forkfirst.plan.steps import Step


class HoldReadiness(Step):
    """Keep the descriptor on which the supervisor waits for a newline."""

    manual = "fcntl(2)"
    taken_in = "managed.telling"
    fd: int
    needed: bool

    def describe(self) -> str:
        return f"hold descriptor {self.fd}, on which a newline will say READY"


class TellManager(Step):
    """Find the manager's socket and watchdog, and remove both from the environment of children."""

    manual = "sd_notify(3)"
    taken_in = "managed.telling"
    ready_seconds: float
    as_pid: int

    def describe(self) -> str:
        return "tell the manager of each change, through NOTIFY_SOCKET, which no child inherits"


class KeepListeners(Step):
    """Have the manager keep each listener of our own, so that no restart closes it."""

    manual = "sd_notify(3)"
    taken_in = "managed.keeping"
    most: int

    def describe(self) -> str:
        return "have the manager keep each listener that we opened, for the next start"
