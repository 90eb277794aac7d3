"""A real Tokio: obstore used before the fork hangs after it, and used after it works.

Needs obstore (`pip install obstore`); says so and exits with 77 where it is not installed.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from scene import ask_guard, say, watch

if TYPE_CHECKING:
    from collections.abc import Callable


def make_use(folder: str) -> Callable[[], None]:
    """Return a function that writes and reads one object a few times."""
    obstore: Any = importlib.import_module("obstore")
    store: Any = importlib.import_module("obstore.store").LocalStore(folder)

    def use() -> None:
        for _ in range(20):
            obstore.put(store, "name", b"value")
            obstore.get(store, "name").bytes()

    return use


def fork_and_use(use: Callable[[], None]) -> bool:
    """Fork a child that uses the store, and return whether it came to its end."""
    child = os.fork()
    if child == 0:
        use()
        os._exit(0)
    return watch(child)


def main() -> int:
    """Fork before the first use of Tokio, then after it."""
    try:
        importlib.import_module("obstore")
    except ImportError:
        say("obstore is not installed: pip install obstore")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        use = make_use(folder)
        say("imported, a store made, Tokio not running yet:")
        ask_guard("tokio")
        worked = fork_and_use(use)
        use()
        say("\nthe parent has used the store; Tokio is running:")
        ask_guard("tokio")
        hung = not fork_and_use(use)
    return 0 if worked and hung else 1


if __name__ == "__main__":
    sys.exit(main())
