"""To accept nobody for a while, on the runtimes that cannot leave out a socket by themselves.

asyncio's own loop can: its selector is ours (`pulse.PulsingSelector`).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.runtime.context import Context
    from forkfirst.unix.stand_in import StandIn

_STDERR = 2


class Accepting:
    """The listeners of one program, and what stands in for them while it is paused."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stand_ins: list[StandIn] = []

    def pause(self) -> None:
        """Accept no more; if the kernel has no way to, say so and go on."""
        if self._stand_ins:
            return
        from forkfirst.unix import stand_in  # noqa: PLC0415 - few are ever paused

        try:
            fds = [fd for _, fd in self._context.descriptors]
            self._stand_ins = stand_in.replace_listeners(fds)
        except OSError as error:
            self._say(f"it cannot be paused, and goes on accepting: {error.strerror}")

    def resume(self) -> None:
        """Accept again, from every listener that the program has not closed meanwhile."""
        while self._stand_ins:
            try:
                self._stand_ins.pop().leave()
            except OSError as error:
                self._say(f"a listener cannot be taken up again: {error.strerror}")

    def _say(self, text: str) -> None:
        # Not through sys.stderr: the thread that was interrupted may hold its lock.
        octets = f"forkfirst: {self._context.name}: {text}\n".encode(errors="replace")
        try:
            os.write(_STDERR, octets)
        except OSError:
            return  # nobody reads it
