"""A signal that goes to the wrong process: the child is told to stop, and does not.

A loop hears of signals through its wakeup descriptor, a socket that parent and child share. What
the child's signal handler writes there is read by the parent. On Python 3.11 the *parent* then runs
its shutdown; newer ones take the descriptor away from the child. On all, the child, whose handler
was for a loop it does not have, stays.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import NoReturn

from scene import ask_guard, describe_wait, say


def sleep_on() -> NoReturn:
    """Do in the child what needs no loop."""
    time.sleep(3600)
    os._exit(0)


def kill_if_alive(pid: int) -> bool:
    """Say whether the process is alive, and end it."""
    stopped, _ = os.waitpid(pid, os.WNOHANG)
    if stopped:
        return False
    say(f"the child is alive, {describe_wait(pid)}")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


async def serve() -> int:
    """Fork, stop the child, and see who stops."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    ask_guard("signal-crossover")
    child = os.fork()
    if child == 0:
        sleep_on()
    await asyncio.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    say(f"SIGTERM was sent to the child (pid {child})")
    try:
        await asyncio.wait_for(told.wait(), 1)
        say("the PARENT runs its handler for SIGTERM")
    except TimeoutError:
        say("the parent has heard nothing, which is right")
    return 0 if kill_if_alive(child) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(serve()))
