"""The words of the fleet: its states and moves, its settings, its workers and generations.

The three tables say which moves exist at all. `change` makes every change of a state through
them, so the diagram that is drawn from them is the machine and not a picture of it.
"""

from __future__ import annotations

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.fleet.events import ReloadAsked

# -- states and causes ----------------------------------------------------------------------------

STARTING = "starting"  # also of generations and of the fleet: not ready yet
READY = "ready"  # takes new work
PAUSED = "paused"  # takes no new work, and can be resumed
YIELDING = "yielding"  # is dealt no new work, and takes what waits for it alone
HUNG = "hung"  # its loop does not turn; its stacks are being written down
DRAINING = "draining"  # finishes what it has, then leaves
KILLED = "killed"  # has been sent SIGKILL
GONE = "gone"

CANARY = "canary"  # a generation of which only the first few are started
SERVING = "serving"
DEGRADED = "degraded"  # serves with those who are left: what fails is not restarted any more
LEAVING = "leaving"

RUNNING = "running"
RELOADING = "reloading"  # the new generation is becoming ready beside the serving one
DECIDING = "deciding"  # the new one serves, the old one is paused and could come back
STOPPING = "stopping"
FINISHED = "finished"

WORKER_MOVES: dict[tuple[str, str], str] = {
    (STARTING, "ready"): READY,
    (STARTING, "drain"): DRAINING,
    (STARTING, "time is up"): KILLED,
    (STARTING, "exited"): GONE,
    (READY, "hung"): HUNG,
    (READY, "pause"): PAUSED,
    (READY, "yield"): YIELDING,
    (READY, "drain"): DRAINING,
    (READY, "exited"): GONE,
    (YIELDING, "recall"): READY,
    (YIELDING, "drain"): DRAINING,
    (YIELDING, "exited"): GONE,
    (PAUSED, "resume"): READY,
    (PAUSED, "drain"): DRAINING,
    (PAUSED, "exited"): GONE,
    (HUNG, "drain"): DRAINING,
    (HUNG, "time is up"): KILLED,
    (HUNG, "exited"): GONE,
    (DRAINING, "time is up"): KILLED,
    (DRAINING, "kill"): KILLED,
    (DRAINING, "exited"): GONE,
    (KILLED, "exited"): GONE,
    (KILLED, "time is up"): GONE,  # even SIGKILL waits for a process in the kernel; we do not
}

GENERATION_MOVES: dict[tuple[str, str], str] = {
    (CANARY, "healthy"): STARTING,
    (CANARY, "failed"): LEAVING,
    (CANARY, "stop"): LEAVING,
    (STARTING, "all ready"): SERVING,
    (STARTING, "failed"): LEAVING,
    (STARTING, "stop"): LEAVING,
    (SERVING, "crash loop"): DEGRADED,
    (SERVING, "replaced, may return"): PAUSED,
    (SERVING, "replaced"): LEAVING,
    (SERVING, "rolled back"): LEAVING,
    (SERVING, "stop"): LEAVING,
    (DEGRADED, "scaled"): SERVING,
    (DEGRADED, "replaced, may return"): PAUSED,
    (DEGRADED, "replaced"): LEAVING,
    (DEGRADED, "stop"): LEAVING,
    (PAUSED, "called back"): SERVING,
    (PAUSED, "replaced"): LEAVING,
    (PAUSED, "stop"): LEAVING,
    (LEAVING, "empty"): GONE,
}

FLEET_MOVES: dict[tuple[str, str], str] = {
    (STARTING, "all ready"): RUNNING,
    (STARTING, "failed"): STOPPING,
    (STARTING, "stop"): STOPPING,
    (RUNNING, "reload"): RELOADING,
    (RUNNING, "nobody left"): STOPPING,
    (RUNNING, "stop"): STOPPING,
    (RELOADING, "failed"): RUNNING,
    (RELOADING, "committed"): RUNNING,
    (RELOADING, "new one serves"): DECIDING,
    (RELOADING, "stop"): STOPPING,
    (DECIDING, "committed"): RUNNING,
    (DECIDING, "rolled back"): RUNNING,
    (DECIDING, "stop"): STOPPING,
    (STOPPING, "empty"): FINISHED,
}

# -- what there is --------------------------------------------------------------------------------


class Settings(Value):
    """How a generation is kept; every time is in seconds, and finite.

    Attributes:
        workers: How many are asked for, at least 1.
        restart: "always", "on-failure" (not after exit status 0) or "never".
        stable_seconds: A worker that lived so long after it was ready did not fail by starting.
        backoff_base: The wait before the second restart in a row; the first one is immediate.
        backoff_limit: The longest wait, before its jitter.
        backoff_jitter: The share of a wait that chance may add.
        crash_limit: So many failures in a row, and nothing is restarted any more.
        ready_timeout: From the start of a worker until it must be ready.
        health_timeout: From the readiness of the canaries until their health must be known.
        grace_seconds: For a worker to finish what it accepted.
        cancel_seconds: And then to be cancelled, before it is killed.
        stacks_seconds: For a hung worker to write down its stacks.
        kill_seconds: From SIGKILL until a process is given up as unkillable.
        max_age: A worker is replaced when it has been ready so long; 0 means never.
        max_requests: Or has served so many; 0 means never.
        max_memory: Or has so many bytes; 0 means never.
        recycle_jitter: The share of these three that chance may take off.
        canary: The percentage of workers that a reload starts first, to hear of their health.
        commit_window: How long a reload keeps the old generation paused, not gone.
        starts_at_once: How many workers of a reload may be starting at a time; 0 means all.
        yield_seconds: From when a worker is dealt no more connections until its socket may be
            found empty; 0 where the workers share theirs.
    """

    workers: int = 1
    restart: str = "always"
    stable_seconds: float = 5.0
    backoff_base: float = 0.1
    backoff_limit: float = 30.0
    backoff_jitter: float = 0.25
    crash_limit: int = 8
    ready_timeout: float = 60.0
    health_timeout: float = 30.0
    grace_seconds: float = 30.0
    cancel_seconds: float = 5.0
    stacks_seconds: float = 1.0
    kill_seconds: float = 10.0
    max_age: float = 0.0
    max_requests: int = 0
    max_memory: int = 0
    recycle_jitter: float = 0.1
    canary: float = 0.0
    commit_window: float = 0.0
    starts_at_once: int = 0
    yield_seconds: float = 0.0


class Worker(Value):
    """One process, from the wish to start it until it is gone.

    Attributes:
        id: Its number, never used again.
        generation: The number of its generation.
        since: When it entered its state.
        attempts: The failures in a row before it was started.
        deadline: When its state must be over, or None.
        ready_at: When it was ready, or None.
        recycle_at: When it will have been ready long enough, or None.
        share: Chance, in [0, 1): what part of its jitter it has.
        due: Why it is to be replaced, or "".
        healthy: What its own health check said last, or None.
        slot: Which socket of a listener that is spread it accepts from; see `slots`.
    """

    id: int
    generation: int
    state: str
    since: float
    attempts: int = 0
    deadline: float | None = None
    ready_at: float | None = None
    recycle_at: float | None = None
    share: float = 0.0
    due: str = ""
    healthy: bool | None = None
    slot: int = 0


class Generation(Value):
    """Workers of the same code and the same settings.

    Attributes:
        asked: How many workers are asked for now.
        first: How many of them are started first, in a canary.
        until: When its state must be over, or None.
        restarts: When workers that failed will be started again.
        retired: How many workers ended and are, by the restart policy, not replaced.
        failures: How many failed in a row.
        failed_at: When the last one did.
        last_status: The exit status of the last that ended otherwise than with 0.
    """

    number: int
    settings: Settings
    state: str
    asked: int
    first: int = 0
    until: float | None = None
    restarts: tuple[float, ...] = ()
    retired: int = 0
    failures: int = 0
    failed_at: float = 0.0
    last_status: int = 0


class Fleet(Value):
    """Everything that the supervisor knows; a value, so that an upgrade can hand it over.

    Attributes:
        tickets: Who asked for the reload in progress.
        waiting: Who asked for the one after it.
        timer: What the timer is armed for, or None.
        exit_status: What Finish will say.
    """

    state: str
    settings: Settings
    generations: tuple[Generation, ...] = ()
    workers: tuple[Worker, ...] = ()
    next_worker: int = 1
    next_generation: int = 1
    tickets: tuple[str, ...] = ()
    waiting: tuple[ReloadAsked, ...] = ()
    timer: float | None = None
    exit_status: int = 0


def list_moves() -> tuple[tuple[str, str, str, str], ...]:
    """Return every move there is, as (what, from, cause, to), for who draws the diagram."""
    tables = {"worker": WORKER_MOVES, "generation": GENERATION_MOVES, "fleet": FLEET_MOVES}
    return tuple(
        (what, source, cause, target)
        for what, table in tables.items()
        for (source, cause), target in table.items()
    )
