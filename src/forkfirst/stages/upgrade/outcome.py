"""What became of an upgrade: from the supervisor, the old or the new one, to the person's command.

It goes through a pipe that came with the request, and its writing end through the exec.
"""

from __future__ import annotations

from forkfirst.unix import channel
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Outcome(Value):
    """The versions before and after; or why there is no new one, what to do, and its output."""

    before: str = ""
    after: str = ""
    reason: str = ""
    hint: str = ""
    output: str = ""


open_answer: Callable[[], tuple[int, int]] = channel.open_channel
"""Return the ends of the pipe for an outcome: the one to wait at, and the one to pass."""


def send(answer: int, outcome: Outcome) -> None:
    """Tell whoever waits at the other end of *answer*, if anybody still does."""
    fields = {name: str(getattr(outcome, name)) for name in Outcome.__fields__}
    try:  # noqa: SIM105 - contextlib is not loaded here
        channel.send(answer, "outcome", **fields)
    except OSError:
        pass


def wait(fd: int, seconds: float) -> Outcome | None:
    """Wait for the outcome; None if the supervisor ended without a word.

    Raises:
        TimeoutError: It said nothing in *seconds*.
    """
    report = channel.Reader(fd).receive(seconds)
    if report is None:
        return None
    said = {name: str(value) for name, value in report.fields.items()}
    return Outcome(**{name: said.get(name, "") for name in Outcome.__fields__})
