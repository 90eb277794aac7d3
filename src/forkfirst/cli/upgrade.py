"""`upgrade`: the supervisor of a service becomes a new forkfirst, and nobody notices."""

from __future__ import annotations

import os
import time

from forkfirst import config, errors
from forkfirst.cli import known
from forkfirst.stages.upgrade import outcome
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from forkfirst.cli.known import KnownService
    from forkfirst.stages.upgrade.outcome import Outcome

_TIMEOUT = "30s"
_MARGIN_SECONDS = 15.0
"""For the old supervisor to begin, and for the new one to answer."""


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="NAME", help="the service")
    parser.add_argument(
        "--control",
        metavar="SOCKET",
        help="where a service without a record answers: PATH or @NAME",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        default=_TIMEOUT,
        help=f"how long the new forkfirst may take to prove itself (default: {_TIMEOUT})",
    )


def run(_: str, arguments: argparse.Namespace) -> int:
    """Upgrade the supervisor; return the exit status.

    Raises:
        ForkfirstError: It was not, and everything is as it was.
    """
    began = time.monotonic()
    origin = config.Origin("command line", os.getcwd(), prefix="--")
    seconds = config.read_seconds("timeout", arguments.timeout, origin)
    service = known.find(arguments.name)
    if arguments.control:
        control = arguments.control.replace("@", "\0", 1)
        service = replace(service, control_socket=control)
    _check_supervised(service)
    try:
        became = _ask(service, seconds)
    except errors.ForkfirstError as error:
        error.args = (f'cannot upgrade "{service.name}": {error}',)
        raise
    if became.reason:
        raise _make_failure(service.name, became)
    milliseconds = (time.monotonic() - began) * 1000
    print(
        f"{service.name}: upgraded, forkfirst {became.before} → {became.after}, "
        f"after {milliseconds:.0f} ms; its workers were not touched"
    )
    return 0


def _check_supervised(service: KnownService) -> None:
    try:
        facts = service.ask("status")
    except errors.NotRunningError as error:
        error.args = (f'cannot upgrade "{service.name}": it is not running',)
        raise
    if "workers" not in facts:
        message = f'cannot upgrade "{service.name}": it runs as one process, without a supervisor'
        hint = f"forkfirst reload {service.name}: its new process has the new forkfirst"
        raise errors.UsageError(message, hint=hint)


def _ask(service: KnownService, seconds: float) -> Outcome:
    receive, send = outcome.open_answer()
    try:
        service.ask("upgrade", seconds=10.0, passing=[send], proof_seconds=seconds)
    finally:
        os.close(send)
    try:
        became = outcome.wait(receive, seconds + _MARGIN_SECONDS)
    except TimeoutError as error:
        message = f"no answer after {seconds + _MARGIN_SECONDS:g} s"
        raise errors.StuckError(message) from error
    if became is None:
        message = "the service ended meanwhile"
        raise errors.NotRunningError(message)
    return became


def _make_failure(name: str, became: Outcome) -> errors.ForkfirstError:
    """Show what the new forkfirst wrote; return what to say of it."""
    shown = ""
    if became.output:
        os.write(2, became.output.encode(errors="backslashreplace"))
        shown = " (its output is above)"
    hint = became.hint or "the supervisor from before goes on, with its workers"
    return errors.ForkfirstError(f'cannot upgrade "{name}": {became.reason}{shown}', hint=hint)
