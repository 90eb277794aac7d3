"""The same, mended: importing it only makes things, and main() starts what runs.

forkfirst start examples/preload/starts_in_main.py:main --workers 2 --preload=require
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkfirst import Context

WORDS = {number: f"word {number}" for number in range(100_000)}
"""What is worth to be imported once."""

asked: queue.Queue[int] = queue.Queue()
counted: list[int] = []


def count() -> None:
    """Count what is asked for, for ever."""
    while True:
        counted.append(asked.get())


async def main(context: Context) -> None:
    """Serve until the service is asked to stop."""
    threading.Thread(target=count, name="counter", daemon=True).start()
    asked.put(len(WORDS))
    context.ready()
    await context.wait_stopping()
