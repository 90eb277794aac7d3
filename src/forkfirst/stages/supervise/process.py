"""A child as the supervisor sees it: a pid, a channel both ways, and the end of its lifeline."""

from __future__ import annotations

import os
import time

from forkfirst.guard import verdict
from forkfirst.unix import channel, lifeline, passage, session, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, NoReturn

    from forkfirst.unix.channel import Field, Report


_TOLD = ("began", "status", "how", "hint", "asked_at")


def fork(
    run: Callable[[int, int], NoReturn], foreign: Iterable[int]
) -> tuple[int, tuple[int, int]]:
    """Fork a child that calls *run*; return, in the supervisor only, its pid and our two ends.

    Args:
        run: Gets the child's ends: of the channel, and of the lifeline. Never returns.
        foreign: Descriptors of the supervisor that are nobody else's.

    Raises:
        UnsafeFork: The supervisor has become something that must not fork.
        OSError: The kernel refused.
    """
    verdict.assert_fork_safe()
    (ours, let_go), theirs = open_ends()
    try:
        mask = signals.block_all()
        try:
            pid = session.fork()
            if pid == 0:
                for fd in (*foreign, ours, let_go):
                    os.close(fd)
                run(*theirs)
        finally:
            signals.set_mask(mask)
    except OSError:
        os.close(ours)
        os.close(let_go)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return pid, (ours, let_go)


def open_ends() -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the ends of a channel and of a lifeline: the supervisor's, and the child's."""
    ours, theirs = passage.open_passage()
    try:
        held, let_go = lifeline.open_lifeline()
    except OSError:
        os.close(ours)
        os.close(theirs)
        raise
    return (ours, let_go), (theirs, held)


class Process:
    """One child's process; it is not reaped, so its pid is its own.

    Attributes:
        number: What the fleet calls the worker.
        generation: And its generation.
        pid: The process; 0 for one that a template is just forking, until it has said it.
        began: When it was forked, in seconds since the epoch.
        raw: What wait(2) said of its end, or None.
        status: What the program last said of itself.
        how: What it reported of its end: "raised", the text of a refusal, or "".
        asked_at: When it was asked for its pulse and has not answered since; 0.0 if it has.
    """

    def __init__(
        self,
        number: int,
        generation: int,
        pid: int,
        ends: tuple[int, int],
        *,
        held: bytes = b"",
    ) -> None:
        self.number = number
        self.generation = generation
        self.pid = pid
        self.began = time.time()
        self.raw: int | None = None
        self.status = ""
        self.how = ""
        self.hint = ""
        self.asked_at = 0.0
        self.fd, self._lifeline = ends
        self._reader = channel.Reader(self.fd, held)
        self._open = True
        os.set_blocking(self.fd, False)  # a worker that is stuck must not hold up the others

    @property
    def title(self) -> str:
        """What people are told that it is."""
        return f"worker {self.number} (pid {self.pid})"

    def hand_over(self) -> dict[str, Any]:
        """Return what `take_over` makes the same of, in a process with its descriptors."""
        told = {name: getattr(self, name) for name in _TOLD}
        return {
            **told,
            "worker": [self.number, self.generation, self.pid, self.fd, self._lifeline],
            "open": self._open,
            "held": self._reader.held.decode("latin-1"),
        }

    @classmethod
    def take_over(cls, data: Mapping[str, Any]) -> Process:
        """Return the worker that another process of this pid has had."""
        number, generation, pid, fd, lifeline_ = data["worker"]
        held = data["held"].encode("latin-1")
        process = cls(number, generation, pid, (fd, lifeline_), held=held)
        for name in _TOLD:
            setattr(process, name, data[name])
        process._open = data["open"]
        return process

    @property
    def is_heard(self) -> bool:
        """Whether it could still say something."""
        return self._open

    def tell(self, kind: str, **fields: Field) -> bool:
        """Send the worker a message; False if it cannot take it: gone, or stuck for long."""
        try:
            channel.send(self.fd, kind, **fields)
        except OSError:
            return False
        return True

    def hear(self) -> Iterator[Report]:
        """Yield what it has said, without waiting."""
        while self._open:
            try:
                report = self._reader.receive(0.0)
            except TimeoutError:
                return
            except (OSError, ValueError):
                report = None  # it was killed in the middle, or is not ours any more
            if report is None:
                self._open = False
                return
            yield report

    def signal(self, number: int) -> None:
        """Send it a signal; none if it has ended. One that has not begun yet is ended by any."""
        if not self.pid:
            self._cut()
        elif self.raw is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Let go of its descriptors, if that has not been done; if it lives, it dies of it."""
        self._open = False
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
        self._cut()

    def _cut(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._lifeline = -1

    def descriptors(self) -> tuple[int, int]:
        """Return what no other child may inherit; -1 for what is closed."""
        return self.fd, self._lifeline


def read_memory(pid: int) -> int:
    """Return the bytes of memory of *pid*, shared pages by their share; 0 if nothing tells.

    Source: proc_pid_smaps(5).
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def read_resident(pid: int) -> int:
    """Return the resident bytes of *pid*, or 0. Cheaper than `read_memory`, and counts all twice.

    Source: proc_pid_statm(5).
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0
