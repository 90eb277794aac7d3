"""What can happen to a fleet, and what can be done about it: the two sides of `fleet.react`."""

from __future__ import annotations

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.fleet.state import Settings

# -- what happens ---------------------------------------------------------------------------------


class Event(Value):
    """Something that has happened."""


class StartAsked(Event):
    """The first event of a fleet."""


class Started(Event):
    """A worker's process exists; *share* is its chance number, in [0, 1)."""

    worker: int
    share: float = 0.0


class Ready(Event):
    """A worker can take work."""

    worker: int


class Exited(Event):
    """A worker's process has ended, or could not be started; *status* is 128 + n for a signal."""

    worker: int
    status: int
    jitter: float = 0.0


class Hung(Event):
    """A worker's loop has not turned for too long."""

    worker: int
    jitter: float = 0.0


class Health(Event):
    """What a worker's own health check says; a program without one is healthy."""

    worker: int
    healthy: bool
    reason: str = ""


class Measured(Event):
    """What a worker has served, and the memory it has, in bytes."""

    worker: int
    requests: int = 0
    memory: int = 0


class Queued(Event):
    """How many connections wait for a worker that yields."""

    worker: int
    connections: int


class Recycle(Event):
    """Somebody wants a worker to be replaced by a fresh one."""

    worker: int
    reason: str = "asked for"


class ReloadAsked(Event):
    """Somebody wants a new generation; *ticket* comes back in the answer.

    Attributes:
        settings: Of the new generation; None takes those of the serving one, and its scale.
        wait: Whether to wait for a reload in progress, instead of being refused.
    """

    ticket: str = ""
    settings: Settings | None = None
    wait: bool = False


class ScaleAsked(Event):
    """Somebody wants another number of workers; less than 1 means 1."""

    workers: int


class StopAsked(Event):
    """The service is to end; *force* kills without a grace period, also in a second request."""

    exit_status: int = 0
    force: bool = False


class Tick(Event):
    """The timer that was armed has run out; one too early does no harm."""

    jitter: float = 0.0


# -- what is done ---------------------------------------------------------------------------------


class Action(Value):
    """Something to do now, in the order given."""


class StartWorker(Action):
    """Start a process; answer with Started, then Ready or Exited."""

    worker: int
    generation: int


class Drain(Action):
    """Have a worker take no more work, finish within *grace* seconds, cancel the rest and end."""

    worker: int
    grace: float


class Pause(Action):
    """Have a worker take no more work for now."""

    worker: int


class Resume(Action):
    """Have a paused worker take work again."""

    worker: int


class Kill(Action):
    """Send a worker SIGKILL."""

    worker: int


class LogStacks(Action):
    """Have a hung worker's stacks written to the log."""

    worker: int


class CheckHealth(Action):
    """Ask a worker for its health; answer with Health."""

    worker: int


class CheckQueue(Action):
    """Look how many connections wait for a worker that yields; answer with Queued."""

    worker: int


class Abandon(Action):
    """Say that a killed worker does not end, and wait for it no longer."""

    worker: int


class ForgetGeneration(Action):
    """The last worker of a generation is gone: its template and what only it used can go."""

    generation: int


class ReportReady(Action):
    """Tell who started the service that it is ready."""


class ReportStartFailed(Action):
    """Tell who started the service that it failed, and by which worker, if by one."""

    reason: str
    exit_status: int
    worker: int | None = None


class ReportReloaded(Action):
    """Tell who asked that *generation* serves, and that this is final."""

    tickets: tuple[str, ...]
    generation: int


class ReportReloadFailed(Action):
    """Tell who asked why there is no new generation; the serving one was not touched."""

    tickets: tuple[str, ...]
    reason: str
    worker: int | None = None


class ReportCrashLoop(Action):
    """Tell everybody that nothing is restarted any more, and how many workers are left."""

    generation: int
    failures: int
    ready: int


class ArmTimer(Action):
    """Send a Tick at the time *at*, on the clock of `now`, and at no other; None means never."""

    at: float | None


class Finish(Action):
    """End the supervisor: nothing is left."""

    exit_status: int
