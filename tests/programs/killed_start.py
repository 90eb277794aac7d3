"""A start in which one of its three processes is killed after one of its steps.

killed_start.py NUMBER VICTIM: the step's number in the plan; launcher, leader or service. Every
step is really taken: the table is the real one, each entry followed by the question whose turn it
is to die.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forkfirst import config, errors
from forkfirst.plan import order, steps
from forkfirst.stages import apply, fork_first, launch, probe
from forkfirst.stages.start import Start
from forkfirst.unix import children

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.stages.fork_first import Forked

HERE = str(Path(__file__).parent)
LAUNCHER = os.getpid()


def main(number: int, victim: str) -> int:
    settings = {"target": f"{HERE}/daemons.py:wait", "listen": ["web=127.0.0.1:0"]}
    service = config.make_declaration("app", [(settings, config.Origin("test", HERE))])
    plan = order.make_plan(service, probe.read_host(detaching=True))
    fatal = plan.steps[number]

    def followed(function: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def act(step: steps.Step, state: Any) -> None:
            function(step, state)
            forked = getattr(state, "forked", state)
            if step == fatal and not _is_new_process(step, forked):
                _kill(victim, forked)

        return act

    table = apply.with_changes(
        {kind: followed(apply.TABLE[kind]) for kind in map(type, plan.steps)}
    )
    try:
        forked = fork_first.fork_service(table, module="asyncio")
        launch.launch(Start(plan, forked=forked), table)
    except errors.ForkfirstError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


def _is_new_process(step: steps.Step, forked: Forked) -> bool:
    """Both sides of a fork come back from it: only the older one acts."""
    return isinstance(step, steps.Fork | steps.ForkAgain) and forked.child == 0


def _kill(victim: str, forked: Forked | None) -> None:
    """Kill the process that is *victim*, seen from this one, and wait until it is dead."""
    if os.getpid() == LAUNCHER:
        leader = forked.child if forked is not None else -1
        service = -1
    elif forked is not None and forked.child > 0:  # this is the leader, which has forked
        leader, service = os.getpid(), forked.child
    elif os.getppid() == LAUNCHER:
        leader, service = os.getpid(), -1
    else:
        leader, service = os.getppid(), os.getpid()
    if victim == "service" and service < 0:
        service = _find_child(leader)
    pid = {"launcher": LAUNCHER, "leader": leader, "service": service}[victim]
    assert pid > 1
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(20_000)
    os.close(pidfd)


def _find_child(parent: int) -> int:
    """Look until *parent* has a child: it is just being forked."""
    for _ in range(1_000_000):
        for pid in children.list_session(parent):
            if pid != parent:
                return pid
        os.sched_yield()
    raise AssertionError


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
