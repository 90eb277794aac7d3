"""`forkfirst start`, of which one process waits to be traced before it does anything.

held_start.py ROLE WORD…: launcher, leader or service; it tells its pid, and stops until continued.
"""

from __future__ import annotations

import os
import signal
import sys

from forkfirst.__main__ import main

ROLES = ("launcher", "leader", "service")
forks = 0


def hold() -> None:
    with open(os.environ["TELL"], "w", encoding="ascii") as fifo:  # noqa: PTH123 - nothing is imported
        fifo.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGSTOP)


def count_fork() -> None:
    global forks  # noqa: PLW0603 - each process has its own
    forks += 1
    if ROLES[forks] == sys.argv[0]:
        hold()


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    os.register_at_fork(after_in_child=count_fork)
    if sys.argv[0] == ROLES[0]:
        hold()
    main()
