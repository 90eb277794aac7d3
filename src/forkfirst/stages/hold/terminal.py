"""The terminal, lent to a program that reads from it: a debugger at a breakpoint, most often.

A watched command has a process group of its own, so the kernel stops it when it reads from the
terminal. Then it gets the terminal, with Ctrl-C and all, until it ends: what a shell does.
"""

from __future__ import annotations

import os
import signal


def prepare() -> None:
    """Let this process take the terminal back while it is in the background: tcsetpgrp(3)."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def lend(pgid: int) -> bool:
    """Give the terminal at descriptor 0 to the group *pgid*, if it is ours; let the group go on."""
    try:
        if os.tcgetpgrp(0) != os.getpgrp():
            return False
        os.tcsetpgrp(0, pgid)
        os.killpg(pgid, signal.SIGCONT)
    except OSError:
        return False  # no terminal, or the group is gone
    return True


def take_back(pgid: int) -> bool:
    """Take the terminal back from the group *pgid*; return whether that had it."""
    try:
        if os.tcgetpgrp(0) != pgid:
            return False
        os.tcsetpgrp(0, os.getpgrp())
    except OSError:
        return False
    return True
