"""A daemon that hangs in epoll_wait: the loop was made before the fork.

The launcher leaves its `with`, which closes the loop, which takes the loop's self-pipe out of the
epoll. The child has a copy of the loop, but the epoll is one for both: it waits for ever.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from scene import ask_guard, say, watch


async def serve() -> None:
    """Wait for a thread, as every name that is looked up does."""
    print(".", end="", flush=True)
    await asyncio.to_thread(time.sleep, 0.1)
    print(".", flush=True)


def main() -> int:
    """Daemonize inside a Runner, and watch the daemon."""
    launcher_left, leave = os.pipe()
    with asyncio.Runner() as runner:
        runner.get_loop()
        ask_guard("hang")
        child = os.fork()
        if child == 0:
            os.close(leave)
            os.read(launcher_left, 1)
            runner.run(serve())
            os._exit(0)
    os.close(leave)
    say("the launcher has closed its loop; the daemon prints its first dot, then a second one:")
    return 1 if watch(child, "\nthe daemon") else 0


if __name__ == "__main__":
    sys.exit(main())
