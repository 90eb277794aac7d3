"""Runs a state in a fresh interpreter and watches what becomes of the two processes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

PLAY = Path(__file__).with_name("play.py")
# Seconds in which nothing at all happens in child and parent: no CPU time, no context switch.
QUIET = 0.6
LIMIT = 25.0


class Played(NamedTuple):
    """What was seen of one state."""

    outcome: str
    """harmless, wrong, hang or crash."""
    verdict: dict[str, str]
    """What the guard said before the fork: kind → certainty."""
    detail: str
    """Where the child waited, or which signal or exception ended it."""

    @property
    def refused(self) -> bool:
        """Whether the guard would have refused this fork."""
        return any(certainty != "notice" for certainty in self.verdict.values())


def play(home: str, name: str, python: str = sys.executable) -> Played:
    """Play the state *name* and tell what came of it; nothing is left running."""
    receive, report = os.pipe()
    process = subprocess.Popen(
        [python, "-W", "ignore", str(PLAY), home, name, str(report)],
        pass_fds=(report,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=_clean_environment(),
    )
    os.close(report)
    watch = _Watch(process.pid, receive)
    try:
        hung = watch.wait()
        detail = watch.describe_wait() if hung else ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        os.close(receive)
    lines = watch.lines
    verdict = _read_verdict(lines, errors.decode(errors="replace"))
    if hung:
        return Played("hang", verdict, detail)
    codes = [int(line.split()[1]) for line in lines if line.startswith(("child ", "parent "))]
    if not any(line.startswith("forked ") for line in lines) or process.returncode < 0:
        codes.append(process.returncode)
    bad = [code for code in codes if code]
    if any(code < 0 for code in bad):
        return Played("crash", verdict, signal.Signals(-min(bad)).name)
    if bad:
        last = errors.decode(errors="replace").strip().splitlines()
        return Played("wrong", verdict, last[-1] if last else f"exit status {bad[0]}")
    return Played("harmless", verdict, "")


def _clean_environment() -> dict[str, str]:
    """Drop PYTHONUNBUFFERED and the like, and what would start a coverage measurement there.

    The first change what a fork duplicates, the second brings clean-ups and locks of its own.
    """
    others = ("PYTHON", "COVERAGE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


def _read_verdict(lines: list[str], errors: str) -> dict[str, str]:
    for line in lines:
        if line.startswith("verdict"):
            return {
                kind: certainty
                for kind, _, certainty in (word.partition("=") for word in line.split()[1:])
            }
    message = f"the state never came to its fork: {errors}"
    raise AssertionError(message)


class _Watch:
    """Follows the parent's report, and the processes' activity, to their end or to a standstill."""

    def __init__(self, parent: int, receive: int) -> None:
        self._parent = parent
        self._receive = receive
        self._text = b""

    @property
    def lines(self) -> list[str]:
        return self._text.decode().splitlines()

    @property
    def _child(self) -> int:
        pids = [int(line.split()[1]) for line in self.lines if line.startswith("forked ")]
        return pids[-1] if pids else 0

    def wait(self) -> bool:
        """Return False when the parent has ended, True when both stand still or time is up."""
        end = time.monotonic() + LIMIT
        quiet_since, before = time.monotonic(), ""
        with os.fdopen(os.pidfd_open(self._parent)) as pidfd:
            readable: list[Any] = [pidfd, self._receive]
            while time.monotonic() < end:
                ready, _, _ = select.select(readable, [], [], 0.05)
                if self._receive in ready:
                    part = os.read(self._receive, 65536)
                    self._text += part
                    if not part:
                        readable.remove(self._receive)
                elif pidfd in ready:
                    return False  # nothing is left to read: the report was looked at first
                now = self._read_activity()
                if now != before or not self._text:
                    quiet_since, before = time.monotonic(), now
                elif time.monotonic() - quiet_since > QUIET:
                    return True
        return True

    def _read_activity(self) -> str:
        """Everything that changes while a process does anything, and "R" if it wants to run."""
        found = []
        tasks = [Path(f"/proc/{self._parent}/task/{self._parent}")]
        if self._child:
            tasks += Path(f"/proc/{self._child}/task").glob("*")
        for task in tasks:
            with contextlib.suppress(OSError):
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                status = (task / "status").read_text()
                switches = status.partition("voluntary_ctxt_switches:")[2]
                running = str(time.monotonic()) if fields[0] in "RD" else ""
                found += [task.name, *fields[11:13], switches, running]
        return " ".join(found)

    def describe_wait(self) -> str:
        """Return what the child waits in, as the kernel names it, or what it does instead."""
        pid = self._child or self._parent
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                return "the parent stands still, its child has ended"
            if state == "R":
                return "runs without end"
            place = Path(f"/proc/{pid}/wchan").read_text()
            who = "" if self._child else ", in the parent"
            return f"{place}{who}"
        return "the parent stands still"
