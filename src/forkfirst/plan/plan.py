"""What was decided, as a value: what the launcher hands to the service.

Apart from `order`, which decides it: the service takes its steps, and decides nothing.
"""

from __future__ import annotations

from forkfirst.plan.first import FIRST_STEPS
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Identity
    from forkfirst.plan.places import Places
    from forkfirst.plan.service import Declaration
    from forkfirst.plan.steps import Step


class Plan(Value):
    """What a start will do: each step in the process that takes it, in order.

    Attributes:
        mode: `order.DAEMON`, `order.FOREGROUND` or `order.FIRST_PROCESS`.
        service: What was declared.
        places: Where its files are.
        identity: Whom it becomes, or None.
        first: Steps of the process that the command started, until it has forked.
        leader: Steps of the first child, the session leader.
        early: Steps of the service while it waits for its plan.
        launcher: Steps of the process that the command started, after the fork if there is one.
        worker: Steps of the process that runs the program, or of the supervisor in its place.
        last: Steps of the launcher when all the others are done.
        program: Steps of each worker, taken anew for each; empty where there is no supervisor.
        template: Steps of the process that workers are forked from; empty where that is the
            supervisor itself.
    """

    mode: str
    service: Declaration
    places: Places
    identity: Identity | None
    first: tuple[Step, ...]
    leader: tuple[Step, ...]
    early: tuple[Step, ...]
    launcher: tuple[Step, ...]
    worker: tuple[Step, ...]
    last: tuple[Step, ...]
    program: tuple[Step, ...] = ()
    template: tuple[Step, ...] = ()

    @property
    def plain(self) -> tuple[Step, ...]:
        """The steps of a worker that no template has forked."""
        chosen = (*self.template, *self.program)
        return tuple(step for step in chosen if step.taken_in != "preload.template")

    @property
    def spawns(self) -> bool:
        """Whether its processes are fresh interpreters, and none is forked."""
        return self.first not in ((), FIRST_STEPS)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in the order in which they are taken."""
        return (
            *self.first,
            *self.leader,
            *self.early,
            *self.launcher,
            *self.worker,
            *self.last,
            *self.template,
            *self.program,
        )
