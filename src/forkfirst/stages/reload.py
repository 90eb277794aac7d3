"""How a reload is asked for and answered, by whomever it is carried out.

`forkfirst reload` makes the declaration anew in a process of its own, opens the listeners that are
new, and passes all of it over the control socket, with the writing end of a pipe for the answer. A
supervisor starts workers with it (`supervise.reloading`), a process without one its successor
(`succession.predecessor`).
"""

from __future__ import annotations

import os
import signal
import sys

from forkfirst import errors
from forkfirst.stages import packing
from forkfirst.unix import channel
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forkfirst.plan.plan import Plan
    from forkfirst.stages.start import Start
    from forkfirst.unix.channel import Field

_DEFAULT_IN_CHILDREN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def encode(plan: Plan) -> str:
    """Return *plan* as a text for `decode`."""
    import binascii  # noqa: PLC0415 - only for a reload

    return binascii.b2a_base64(packing.pack(plan), newline=False).decode("ascii")


def decode(text: str) -> Plan:
    """Return the plan that *text* is.

    Raises:
        ForkfirstError: It was made by another version.
    """
    import binascii  # noqa: PLC0415 - only for a reload

    try:
        plan: Plan = packing.unpack(binascii.a2b_base64(text))
    except Exception as error:
        message = "the service runs another version of forkfirst: `forkfirst upgrade` it first"
        raise errors.ForkfirstError(message) from error
    return plan


# -- the answer ------------------------------------------------------------------------------------


class Answer(Value):
    """What became of a reload.

    Attributes:
        generation: The workers that serve by it; 0 where there are none.
        pid: The process that serves by it; 0 where there is none.
        moved: Whether to ask again: the service is another process by now.
        reason: Why there is neither.
        hint: What to do.
    """

    generation: int = 0
    pid: int = 0
    moved: bool = False
    reason: str = ""
    hint: str = ""


def open_answer() -> tuple[int, int]:
    """Return the ends of the pipe for an answer: the one to wait at, and the one to pass."""
    return channel.open_channel()


def wait_for_answer(fd: int, seconds: float) -> Answer | None:
    """Wait for what became of a reload; None if the service ended without a word.

    Raises:
        TimeoutError: It said nothing in *seconds*.
    """
    report = channel.Reader(fd).receive(seconds)
    if report is None:
        return None
    fields = report.fields
    match report.kind:
        case "reloaded":
            return Answer(generation=int(fields["generation"]))
        case "succeeded":
            return Answer(pid=int(fields["pid"]))
        case "moved":
            return Answer(moved=True)
    return Answer(reason=str(fields["reason"]), hint=str(fields["hint"]))


def answer(fd: int, kind: str, **fields: Field) -> None:
    """Send an answer, and close *fd*."""
    try:  # noqa: SIM105 - contextlib is not loaded here
        channel.send(fd, kind, **fields)
    except OSError:
        pass  # whoever asked has not waited
    os.close(fd)


# -- what goes over --------------------------------------------------------------------------------


def choose_listeners(
    before: Iterable[tuple[str, int]],
    addresses: Mapping[str, tuple[int, ...]],
    wanted: Iterable[tuple[str, str]],
    fresh: Mapping[str, int],
) -> list[tuple[str, int]]:
    """Return name and descriptor of each listener that is declared now, in its order.

    One that was declared before with the same text stays the same socket. What a manager has passed
    without anybody's asking stays as well.

    Args:
        before: Those of now.
        addresses: Their descriptors, by the text that declares them.
        wanted: Name and text of each that is declared now.
        fresh: Those that were opened for this reload, by their text.

    Raises:
        ValueError: One is missing.
    """
    found = {**{text: (fd,) for text, fd in fresh.items()}, **addresses}
    declared = [(name, found.get(text, ())) for name, text in wanted]
    missing = [name for name, fds in declared if not fds]
    if missing:
        message = f"no descriptor came for the listener {missing[0]}"
        raise ValueError(message)
    known = {fd for fds in addresses.values() for fd in fds}
    unasked = [(name, fd) for name, fd in before if fd not in known]
    return [*((name, fd) for name, fds in declared for fd in fds), *unasked]


# -- the command, asked for by a signal ------------------------------------------------------------


def spawn_command(start: Start, control: str) -> int:
    """Start `forkfirst reload` for this service, by exec; return its pid.

    It is told where to ask and what was declared wherever it could not find that by the name: under
    a manager there is no record, and one of root's is not for the user that the service became.

    Raises:
        OSError: The kernel refused.
    """
    command = [sys.executable, "-m", "forkfirst", "reload", start.plan.service.name]
    if not start.plan.places.record or start.plan.identity is not None:
        command += ["--control", control, "--chdir", start.directory]
        command += ["--", *start.command]
    return os.posix_spawn(
        sys.executable,
        command,
        start.environment or os.environ,
        setsigdef=_DEFAULT_IN_CHILDREN,
        setsigmask=(),
    )
