"""What `check` has found about one program, for whoever prints it."""

from __future__ import annotations

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.guard.hazard import Verdict


class Checked(Value):
    """One program, and what its hazards mean.

    Attributes:
        target: As it was given, or what the configuration file has under that name.
        verdict: What was found, weighed by what is allowed.
    """

    target: str
    verdict: Verdict
