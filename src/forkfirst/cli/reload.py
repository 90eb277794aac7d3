"""`reload` and `scale`: the commands that change a service while it serves."""

from __future__ import annotations

import os
import time

from forkfirst import config, errors
from forkfirst.cli import declare, known, main
from forkfirst.plan import order
from forkfirst.stages import listeners, probe
from forkfirst.stages import reload as reloading
from forkfirst.stages.start import unlink_if_present
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from forkfirst.cli.known import KnownService
    from forkfirst.plan.plan import Plan
    from forkfirst.plan.service import Declaration
    from forkfirst.stages.reload import Answer

_START = ("-m", "forkfirst", "start")
_SHOWN = 32 * 1024
"""Bytes of the new code's output, the last ones, that a failed reload copies to the terminal."""
_MARGIN_SECONDS = 15.0


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of *command*."""
    parser.add_argument("name", metavar="NAME", help="the service")
    if command == "scale":
        parser.add_argument(
            "workers", metavar="WORKERS", type=int, help="how many workers it is to have"
        )
        return
    parser.add_argument(
        "--no-wait", action="store_true", help="fail if another reload is in progress"
    )
    parser.add_argument(
        "--control",
        metavar="SOCKET",
        help="where a service without a record answers: PATH or @NAME",
    )
    parser.add_argument(
        "--chdir", metavar="DIR", help="where it was started, by the command after --"
    )
    parser.add_argument(
        "--canary", metavar="PERCENT", help="reload so many workers first, and ask their health"
    )
    parser.add_argument(
        "--commit-window", metavar="SECONDS", help="the reload can still be undone for so long"
    )


def run(command: str, arguments: argparse.Namespace) -> int:
    """Do *command*; return its exit status."""
    service = known.find(arguments.name)
    if command == "reload" and arguments.control:
        service = replace(
            service,
            control_socket=arguments.control.replace("@", "\0", 1),
            directory=arguments.chdir or service.directory,
            command=tuple(arguments.tail),
            log="",
        )
    if command == "scale":
        if "workers" not in service.ask("status"):
            message = f'cannot scale "{service.name}": it runs as one process, without a supervisor'
            raise errors.UsageError(message, hint="start it with --workers 1, or more")
        answer = service.ask("scale", workers=arguments.workers)
        print(f"{service.name}: {answer['before']} → {answer['workers']} workers asked for")
        return 0
    return reload(service, arguments)


def reload(service: KnownService, arguments: argparse.Namespace) -> int:
    """Replace the processes of *service* by ones with the code and the settings as they are now.

    Raises:
        ForkfirstError: The new ones did not become ready; the old ones serve as before.
    """
    began = time.monotonic()
    offset = _size_of(service.log)
    there = _ask_what_is_there(service, arguments)
    declared = _declare_again(service, arguments, supervised=there["supervised"])
    host = probe.read_host(detaching=there["mode"] == order.DAEMON)
    plan = order.plan_workers(declared, host, mode=there["mode"])
    try:
        answer = _carry_out(service, plan, wait=not arguments.no_wait)
    except errors.ForkfirstError as error:
        error.args = (f'cannot reload "{service.name}": {error}',)
        raise
    if answer.reason:
        shown = _show_output(service.log, offset)
        message = f'cannot reload "{service.name}": {answer.reason}{shown}'
        before = (
            "workers from before serve" if there["supervised"] else "process from before serves"
        )
        raise errors.ProgramFailedError(message, hint=answer.hint or f"the {before} on, untouched")
    who = f"generation {answer.generation}" if answer.generation else f"pid {answer.pid}"
    milliseconds = (time.monotonic() - began) * 1000
    print(f"{service.name}: reloaded, {who} serves after {milliseconds:.0f} ms")
    return 0


def _carry_out(service: KnownService, plan: Plan, *, wait: bool) -> Answer:
    """Hand *plan* over, and wait for what becomes of it; again while the service moves on."""
    while True:
        there = service.ask("declared")["listeners"]
        receive = _hand_over(service, plan, there, wait=wait)
        try:
            answer = _await_answer(receive, plan.service)
        finally:
            os.close(receive)
        if not answer.moved:
            return answer


def _ask_what_is_there(service: KnownService, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the service says of itself, if it can be reloaded as is asked for."""
    there = service.ask("declared")
    if there["refused"]:
        message = f'cannot reload "{service.name}": {there["refused"]}'
        raise errors.UsageError(message, hint=there["hint"])
    for flag in ("canary", "commit_window"):
        if getattr(arguments, flag) is not None and not there["supervised"]:
            message = (
                f'cannot reload "{service.name}" with --{flag.replace("_", "-")}: '
                "it runs as one process, without a supervisor"
            )
            raise errors.UsageError(message, hint="start it with --workers 1, or more")
    return there


def _declare_again(
    service: KnownService, arguments: argparse.Namespace, *, supervised: bool
) -> Declaration:
    """Make the declaration from the recorded command line and the files as they are now."""
    declared: Declaration | None = getattr(arguments, "declaration", None)
    if declared is None and service.command[1:4] != _START and "start" in service.command:
        _ask_the_program(service, arguments)
    if declared is None and service.command[1:4] != _START:
        message = f'cannot reload "{service.name}": nothing is known of how it was started'
        raise errors.UsageError(message)
    service.go_where_it_was_started("reload")
    found = [declared] if declared is not None else []
    if declared is None:
        namespace = main.parse("start", list(service.command[4:]))
        found = [one for one in declare.make_declarations(namespace) if one.name == service.name]
    if not found:
        message = f'cannot reload "{service.name}": it is not declared any more'
        raise errors.ConfigError(message)
    if supervised != bool(found[0].workers):
        how = "without" if supervised else "with"
        message = f'cannot reload "{service.name}": it is now declared {how} workers'
        raise errors.ConfigError(message, hint=f"forkfirst restart {service.name}")
    origin = config.Origin("command line", os.getcwd(), prefix="--")
    flags = {"canary": arguments.canary, "commit-window": arguments.commit_window}
    return replace(found[0], **config.read_flags(flags, origin))


def _ask_the_program(service: KnownService, arguments: argparse.Namespace) -> NoReturn:
    """Have the program that declares itself do it: only its own process may import it."""
    words = list(service.command[: service.command.index("start")])
    words.append("reload")
    words += ["--no-wait"] if arguments.no_wait else []
    for flag in ("canary", "commit_window"):
        if getattr(arguments, flag) is not None:
            words += [f"--{flag.replace('_', '-')}", getattr(arguments, flag)]
    service.go_where_it_was_started("reload")
    os.execv(words[0], words)  # noqa: S606 - our own interpreter, no shell
    raise AssertionError


# -- handing over ----------------------------------------------------------------------------------


def _hand_over(service: KnownService, plan: Plan, there: Sequence[str], *, wait: bool) -> int:
    """Open what is not *there*, pass everything on, and return where the answer comes."""
    fresh = [one for one in plan.service.listeners if str(one) not in there]
    openings = [order.plan_opening(plan.service, one) for one in fresh]
    opened: list[int] = []
    texts: list[str] = []
    receive, send = reloading.open_answer()
    try:
        for step in openings:
            sockets = listeners.open_sockets(step)
            opened += sockets
            texts += [str(step.listener)] * len(sockets)
        service.ask(
            "reload",
            seconds=10.0,
            passing=[send, *opened],
            plan=reloading.encode(plan),
            declared=[(one.name, str(one), one.path or "") for one in plan.service.listeners],
            listeners=texts,
            ready_seconds=plan.service.ready_seconds,
            wait=wait,
        )
    except errors.ForkfirstError:
        for one in fresh:
            if one.path and str(one) in texts:
                unlink_if_present(one.path)
        raise
    finally:
        for fd in (send, *opened):
            os.close(fd)
    return receive


def _await_answer(receive: int, declared: Declaration) -> Answer:
    """Wait for what became of the reload; who carries it out keeps every limit."""
    starts = 1 + declared.workers  # one after the other, at the worst, and the canary's health
    seconds = 2 * (starts * declared.ready_seconds + declared.commit_seconds) + _MARGIN_SECONDS
    try:
        answer = reloading.wait_for_answer(receive, seconds)
    except TimeoutError as error:
        message = f"no answer after {seconds:g} s"
        raise errors.StuckError(message) from error
    if answer is None:
        message = "the service ended meanwhile"
        raise errors.NotRunningError(message)
    return answer


# -- what the person sees --------------------------------------------------------------------------


def _size_of(log: str) -> int:
    try:
        return os.stat(log).st_size if log else 0
    except OSError:
        return 0


def _show_output(log: str, offset: int) -> str:
    """Copy what the service wrote since *offset* to stderr; return words that say so, or ""."""
    try:
        with open(log, "rb") as file:
            if os.path.sameopenfile(file.fileno(), 2):
                return ""  # asked for by SIGHUP: it is there already
            size = os.fstat(file.fileno()).st_size
            file.seek(max(offset if offset <= size else 0, size - _SHOWN))
            output = file.read(_SHOWN)
    except OSError:
        return ""
    if not output:
        return ""
    os.write(2, output if output.endswith(b"\n") else output + b"\n")
    return " (its output is above)"
