"""Opens a listener: from the value that was planned to the descriptor that is passed on."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.plan.listener import Listener
