"""A reload, from the side of the supervisor: a new plan and new listeners are handed to it.

The supervisor has never imported the program, so a worker that it forks has the new code.
"""

from __future__ import annotations

import os

from forkfirst.plan.fleet import events
from forkfirst.plan.service import is_spread, make_settings
from forkfirst.stages import reload
from forkfirst.stages.supervise import outside
from forkfirst.stages.supervise.actions import Ticket
from forkfirst.stages.supervise.kit import Kit
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forkfirst.plan.plan import Plan
    from forkfirst.stages.supervise.loop import Supervisor


def take_over(supervisor: Supervisor, request: Mapping[str, Any]) -> dict[str, Any]:
    """Begin the reload that *request* brings; its answer goes to the pipe that came with it.

    The first descriptor is that pipe's, the others are the listeners that `listeners` names.
    """
    passed: list[int] = request.get("descriptors", [])
    # Where its files are is the supervisor's to say: whoever asks may be another user.
    plan = replace(reload.decode(request["plan"]), places=supervisor.start.plan.places)
    texts = request["listeners"]
    if len(passed) != 1 + len(texts):
        message = f"{len(passed)} descriptors came for an answer and {len(texts)} listeners"
        raise ValueError(message)
    fresh: dict[str, list[int]] = {}
    for text, fd in zip(texts, passed[1:], strict=True):  # the same text again: another socket
        fresh.setdefault(text, []).append(fd)
    kit = _make_kit(supervisor.kit, plan, {text: fds[0] for text, fds in fresh.items()})
    _spread(supervisor, plan, fresh)
    for one in plan.service.listeners:
        if one.path and str(one) in texts:
            supervisor.start.made_path(one.path)
    supervisor.last_ticket += 1
    name = str(supervisor.last_ticket)
    supervisor.tickets[name] = Ticket(kit, passed[0])
    passed.clear()  # they are ours now
    settings = make_settings(plan.service, count_processors())
    if plan.service.workers == supervisor.kit.plan.service.workers:
        # What is declared has not changed, so what somebody has scaled it to since stays.
        settings = replace(settings, workers=supervisor.count_asked())
    wait = bool(request.get("wait"))
    supervisor.happen(events.ReloadAsked(ticket=name, settings=settings, wait=wait))
    return {"ticket": name}


def _spread(supervisor: Supervisor, plan: Plan, fresh: Mapping[str, list[int]]) -> None:
    """Note which of the listeners that came have a socket for each worker."""
    for one in plan.service.listeners:
        if str(one) in fresh and is_spread(plan.service, one):
            first, *others = fresh[str(one)]
            supervisor.spread.add(first, others)


def count_processors() -> int:
    """Return how many processors this process, and so each worker, may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _make_kit(before: Kit, plan: Plan, fresh: Mapping[str, int]) -> Kit:
    """Return what the new generation has: of what was declared before the same, else *fresh*."""
    wanted = [(one.name, str(one)) for one in plan.service.listeners]
    return Kit(plan, reload.choose_listeners(before.listeners, before.addresses, wanted, fresh))


def spawn(supervisor: Supervisor) -> None:
    """Start `forkfirst reload` for this service, by exec: that is what SIGHUP asks for."""
    outside.say_reloading(supervisor)
    try:
        pid = reload.spawn_command(supervisor.start, supervisor.control)
    except OSError as error:
        supervisor.say(f"cannot start the reload that SIGHUP asks for: {error}")
        return
    supervisor.spawned[pid] = "the reload that SIGHUP asked for"
