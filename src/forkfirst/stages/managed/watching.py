"""Feeds the manager's watchdog: only while the loop turns and the program says that it is well.

One small thread. When the loop has stood still for three quarters of what the manager allows, it
writes where everything is to stderr, while there is still somebody to write; then the manager's
limit passes, and it kills. When C code holds the interpreter, this thread stands still as well, and
the fault handler writes the stacks at the manager's SIGABRT.
"""

from __future__ import annotations

import os
import time

from forkfirst.stages import answers
from forkfirst.systemd.watchdog import Feeder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.stages.answers import Facts
    from forkfirst.stages.managed.telling import ManagedTelling, Manager

THREAD_NAME = "forkfirst-watchdog"
_LOOKS = 4
"""In one interval between two feedings."""


class Watching:
    """Watches over one program, for one manager."""

    def __init__(
        self, manager: Manager, interval: float, facts: Facts, telling: ManagedTelling
    ) -> None:
        self._manager = manager
        self._pause = interval / _LOOKS
        self._feeder = Feeder(interval, time.monotonic())
        self._facts = facts
        self._telling = telling

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        import threading  # noqa: PLC0415 - with the first of the service's own threads

        from forkfirst.runtime import stacks  # noqa: F401, PLC0415 - later there may be no right to

        threading.Thread(target=self._run, name=THREAD_NAME, daemon=True).start()

    def _run(self) -> None:
        while True:
            self._look()
            time.sleep(self._pause)

    def _look(self) -> None:
        context = self._facts.context
        now = time.monotonic()
        stuck = context.pulse.stuck_seconds(now) if context is not None else 0.0
        trouble = self._ask_health() if not stuck else ""
        match self._feeder.decide(now, now - stuck, not trouble):
            case "feed":
                if not self._telling.fed_by_command:
                    self._manager.tell(lambda notifier: notifier.watchdog())
            case "stuck":
                self._say(
                    f"the loop has not turned for {stuck:.1f} s, and the watchdog is not fed; "
                    f"its threads and tasks:\n{answers.describe_stacks(self._facts)}"
                )
            case "unwell":
                self._say(f"not well, so the watchdog is not fed: {trouble}")

    def _ask_health(self) -> str:
        """Return why the program is not well, or ""."""
        context = self._facts.context
        if context is None:
            return ""
        try:
            said = context.healthy()
        except Exception as error:  # noqa: BLE001 - a check that fails is an answer
            return f"{type(error).__name__}: {error}"
        return said if isinstance(said, str) else "" if said in (None, True) else "it says so"

    def _say(self, text: str) -> None:
        # Not through sys.stderr: the thread that is stuck may hold its lock.
        line = f"forkfirst: {self._facts.plan.service.name}: {text}\n"
        try:
            os.write(2, line.encode(errors="replace"))
        except OSError:
            return
