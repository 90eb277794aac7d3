"""A reload, from the side of the supervisor: a new plan and new listeners are handed to it.

The supervisor has never imported the program, so a worker that it forks has the new code. Only the
declaration must be made anew, and that is what `forkfirst reload` does, in a process of its own:
it reads the configuration, opens the listeners that are new, and passes all of it over the control
socket, with the writing end of a pipe for the answer.
"""

from __future__ import annotations

import _pickle  # as in `handover`: both ends are one program
import os
import signal
import sys

from forkfirst import errors
from forkfirst.plan.fleet import events
from forkfirst.plan.service import make_settings
from forkfirst.stages.supervise import outside
from forkfirst.stages.supervise.actions import Ticket
from forkfirst.stages.supervise.kit import Kit
from forkfirst.unix import channel
from forkfirst.values import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forkfirst.plan.plan import Plan
    from forkfirst.stages.supervise.loop import Supervisor

_DEFAULT_IN_CHILDREN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def encode(plan: Plan) -> str:
    """Return *plan* as a text for `take_over`."""
    import binascii  # noqa: PLC0415 - only for a reload

    return binascii.b2a_base64(_pickle.dumps(plan), newline=False).decode("ascii")


class Answer(Value):
    """What became of a reload: the generation that serves by it, or 0 and why there is none."""

    generation: int = 0
    reason: str = ""
    hint: str = ""


def open_answer() -> tuple[int, int]:
    """Return the ends of the pipe for an answer: the one to wait at, and the one to pass."""
    return channel.open_channel()


def wait_for_answer(fd: int, seconds: float) -> Answer | None:
    """Wait for what became of a reload; None if the supervisor ended without a word.

    Raises:
        TimeoutError: It said nothing in *seconds*.
    """
    report = channel.Reader(fd).receive(seconds)
    if report is None:
        return None
    fields = report.fields
    if report.kind == "reloaded":
        return Answer(generation=int(fields["generation"]))
    return Answer(reason=str(fields["reason"]), hint=str(fields["hint"]))


def _decode(text: str) -> Plan:
    import binascii  # noqa: PLC0415 - only for a reload

    # A pickle can do whatever its sender could: but only this user and root are answered here, and
    # they may do with this process as they like anyway.
    try:
        plan: Plan = _pickle.loads(binascii.a2b_base64(text))
    except Exception as error:
        message = "this supervisor is of another version of forkfirst: `forkfirst upgrade` it first"
        raise errors.ForkfirstError(message) from error
    return plan


def take_over(supervisor: Supervisor, request: Mapping[str, Any]) -> dict[str, Any]:
    """Begin the reload that *request* brings; its answer goes to the pipe that came with it.

    The first descriptor is that pipe's, the others are the listeners that `listeners` names.
    """
    passed: list[int] = request.get("descriptors", [])
    plan = _decode(request["plan"])
    texts = request["listeners"]
    if len(passed) != 1 + len(texts):
        message = f"{len(passed)} descriptors came for an answer and {len(texts)} listeners"
        raise ValueError(message)
    kit = _make_kit(supervisor.kit, plan, dict(zip(texts, passed[1:], strict=True)))
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


def count_processors() -> int:
    """Return how many processors this process, and so each worker, may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _make_kit(before: Kit, plan: Plan, fresh: Mapping[str, int]) -> Kit:
    """Return what the new generation has: of what was declared before the same, else *fresh*."""
    if not plan.service.listeners and not before.plan.service.listeners:
        return Kit(plan, before.listeners)  # what a manager has passed without our asking
    found = {**{text: (fd,) for text, fd in fresh.items()}, **before.addresses}
    missing = [str(one) for one in plan.service.listeners if not found.get(str(one))]
    if missing:
        message = f"no descriptor came for the listener {missing[0]}"
        raise ValueError(message)
    return Kit(plan, [(one.name, fd) for one in plan.service.listeners for fd in found[str(one)]])


def spawn(supervisor: Supervisor) -> None:
    """Start `forkfirst reload` for this service, by exec: that is what SIGHUP asks for."""
    start = supervisor.start
    outside.say_reloading(supervisor)
    command = [sys.executable, "-m", "forkfirst", "reload", start.plan.service.name]
    if not start.plan.places.record:  # under a manager, which has no use for one
        command += ["--control", supervisor.control, "--chdir", start.directory]
        command += ["--", *start.command]
    try:
        pid = os.posix_spawn(
            sys.executable, command, os.environ, setsigdef=_DEFAULT_IN_CHILDREN, setsigmask=()
        )
    except OSError as error:
        supervisor.say(f"cannot start the reload that SIGHUP asks for: {error}")
        return
    supervisor.spawned[pid] = "the reload that SIGHUP asked for"
