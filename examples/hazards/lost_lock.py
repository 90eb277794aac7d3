"""A lock that is never released: the thread that held it is not in the child."""

from __future__ import annotations

import os
import sys
import threading
import time

from scene import ask_guard, say, watch


def main() -> int:
    """Let a thread hold a lock for an instant, and fork in that instant."""
    lock, held = threading.Lock(), threading.Event()

    def work() -> None:
        with lock:
            held.set()
            time.sleep(0.5)

    threading.Thread(target=work, name="worker", daemon=True).start()
    held.wait()
    ask_guard("lost-lock")
    child = os.fork()
    if child == 0:
        with lock:
            os._exit(0)
    with lock:
        say("the parent has the lock: its worker gave it back")
    return 1 if watch(child) else 0


if __name__ == "__main__":
    sys.exit(main())
