"""Looking at the workers from time to time: does their runtime turn, how large have they become."""

from __future__ import annotations

import time

from forkfirst.plan.fleet import events
from forkfirst.stages.supervise import actions, starting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.stages.supervise.loop import Supervisor
    from forkfirst.stages.supervise.process import Process

_LOOKS_PER_HANG = 2
_MEASURED_EVERY = 10.0


class Looks:
    """When to look, in seconds of `time.monotonic`; never, where nothing was asked for.

    Attributes:
        look_at: When the workers are asked for their pulse.
        measure_at: When their memory is measured.
    """

    def __init__(self) -> None:
        self.look_at = self.measure_at = float("inf")

    @property
    def due(self) -> float:
        """The next of the two."""
        return min(self.look_at, self.measure_at)

    def plan(self, supervisor: Supervisor) -> None:
        """Arrange when to look next, if there is anything to look for."""
        now = time.monotonic()
        hang = _hang_seconds(supervisor)
        self.look_at = now + hang / _LOOKS_PER_HANG if hang > 0 else float("inf")
        watched = supervisor.kit.plan.service.max_memory > 0
        self.measure_at = now + _MEASURED_EVERY if watched else float("inf")

    def on_time(self, supervisor: Supervisor, now: float) -> None:
        """Look, if it is time."""
        if self.look_at <= now:
            self._look_for_hangs(supervisor, now)
        if self.measure_at <= now:
            self._measure(supervisor, now)

    def note_pulse(self, supervisor: Supervisor, process: Process, seconds: float) -> None:
        """Deal with the answer of a worker whose runtime has not turned for *seconds*."""
        process.asked_at = 0.0
        if seconds >= _hang_seconds(supervisor) > 0:
            supervisor.happen(events.Hung(worker=process.number, jitter=starting.throw_dice()))

    def _look_for_hangs(self, supervisor: Supervisor, now: float) -> None:
        """Ask every worker for its pulse; one that has not answered the last time hangs for sure.

        Asked, so that also code that never lets go of the interpreter's lock is found.
        """
        hang = _hang_seconds(supervisor)
        self.look_at = now + hang / _LOOKS_PER_HANG if hang > 0 else float("inf")
        for process in list(supervisor.processes.values()):
            if process.asked_at and now - process.asked_at >= hang > 0:
                supervisor.happen(events.Hung(worker=process.number, jitter=starting.throw_dice()))
            elif not process.asked_at and process.tell("pulse"):
                process.asked_at = now

    def _measure(self, supervisor: Supervisor, now: float) -> None:
        self.measure_at = now + _MEASURED_EVERY
        for process in list(supervisor.processes.values()):
            memory = actions.measure(process.pid)
            supervisor.happen(events.Measured(worker=process.number, memory=memory))


def _hang_seconds(supervisor: Supervisor) -> float:
    return supervisor.kit.plan.service.hang_seconds
