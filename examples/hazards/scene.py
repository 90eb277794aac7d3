"""What every demonstration here needs: a voice, a watch on the child, and an end.

Nothing waits longer than a few seconds, and no child is left: one that hangs is looked at, then
killed.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from forkfirst.errors import UnsafeFork
from forkfirst.guard.verdict import assert_fork_safe

PATIENCE = 2.0


def say(text: str) -> None:
    """Print a line at once: what is in a buffer at a fork is printed twice."""
    print(text, flush=True)


def ask_guard(service: str) -> None:
    """Print what forkfirst would have said instead of forking here."""
    try:
        assert_fork_safe(service=service)
    except UnsafeFork as refusal:
        lines = [f"forkfirst: {refusal}", ""]
    else:
        lines = ["forkfirst: nothing is seen that would make a fork unsafe", ""]
    say("\n".join(lines))


def watch(pid: int, who: str = "the child") -> bool:
    """Wait for the process *pid* as long as anybody would, and say what came of it.

    A process that is still there then is killed.

    Returns:
        Whether it ended by itself.
    """
    descriptor = os.pidfd_open(pid)
    ended, _, _ = select.select([descriptor], [], [], PATIENCE)
    os.close(descriptor)
    if not ended:
        say(f"{who} (pid {pid}) is still there after {PATIENCE:.0f} s, {describe_wait(pid)}")
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if ended:
        how = f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        say(f"{who} (pid {pid}) ended {how}")
    return bool(ended)


def describe_wait(pid: int) -> str:
    """Return what the kernel says that a process does."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    if state == "R":
        return "using the processor"
    place = Path(f"/proc/{pid}/wchan").read_text()
    return f"asleep in {place}" if place not in ("", "0") else "asleep"
