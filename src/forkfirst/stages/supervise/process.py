"""A worker as the supervisor sees it: a child, a channel both ways, and the end of its lifeline."""

from __future__ import annotations

import os
import time

from forkfirst.unix import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from forkfirst.unix.channel import Field, Report


_TOLD = ("began", "status", "how", "hint", "asked_at")


class Process:
    """One worker's process; it is our child and not reaped, so its pid is its own.

    Attributes:
        number: What the fleet calls the worker.
        generation: And its generation.
        pid: The process.
        began: When it was forked, in seconds since the epoch.
        raw: What wait(2) said of its end, or None.
        status: What the program last said of itself.
        how: What it reported of its end: "raised", the text of a refusal, or "".
        asked_at: When it was asked for its pulse and has not answered since; 0.0 if it has.
    """

    def __init__(  # noqa: PLR0913 - what a process is known by
        self, number: int, generation: int, pid: int, fd: int, lifeline: int, *, held: bytes = b""
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
        self.fd = fd
        self._lifeline = lifeline
        self._reader = channel.Reader(fd, held)
        self._open = True
        os.set_blocking(fd, False)  # a worker that is stuck must not hold up the others

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
        process = cls(*data["worker"], held=data["held"].encode("latin-1"))
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
        """Send it a signal; none if it has ended."""
        if self.raw is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Let go of its descriptors; if it lives, it dies of it."""
        self._open = False
        os.close(self.fd)
        os.close(self._lifeline)

    def descriptors(self) -> tuple[int, int]:
        """Return what no other worker may inherit."""
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
