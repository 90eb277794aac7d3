"""One process of a command that is watched, from its start to the end of its process group."""

from __future__ import annotations

import os
import signal
import sys

from forkfirst.systemd import notify_receiver, passing
from forkfirst.unix import children, spawn
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from forkfirst.stages.hold.passing import Held

NEVER = float("inf")


class Recipe(Value):
    """How to start the command, each time.

    Attributes:
        argv: The command. Its program is looked up each time: an edit may have moved it.
        held: Its sockets.
        with_pid: Whether to say for whom they are (LISTEN_PID).
    """

    argv: tuple[str, ...]
    held: tuple[Held, ...]
    with_pid: bool = True


class Generation:
    """A process of the command, and what it has started in its process group.

    Its pid cannot become anybody else's before `reap` says that it has ended.

    Attributes:
        pid: The process, which leads the group.
        began: When it was started, in seconds of `time.monotonic`.
        kill_at: When its patience ends, or `NEVER`.
        status: Its exit status, or 128 + the signal that ended it; None while it runs.
        description: The same in words, or "".
        is_ready: Whether it has said READY=1.
    """

    def __init__(self, recipe: Recipe, still_ignored: Collection[int], now: float) -> None:
        self.began = now
        self.kill_at = NEVER
        self.status: int | None = None
        self.description = ""
        self.is_ready = False
        self._rest_told = False
        self._taken = False
        self._receiver = _open_receiver()
        try:
            self.pid = self._spawn(recipe, still_ignored)
        except BaseException:
            self.close()
            raise

    @property
    def listened_to(self) -> int | None:
        """The descriptor to wait on for what it says, or None."""
        return None if self._receiver is None else self._receiver.fileno()

    def hear_ready(self) -> bool:
        """Read what it said; return whether it has said READY=1, now or before."""
        if self._receiver is None:
            return self.is_ready
        for message in iter(self._receiver.receive, None):
            for fd in message.fds:
                os.close(fd)
            # Anybody may write to an abstract name.
            if message.pid == self.pid or _is_in_own_session(message.pid):
                self.is_ready = self.is_ready or message.fields.get("READY") == "1"
        return self.is_ready

    def ask_to_stop(self, number: int, kill_at: float) -> None:
        """Send the signal *number*, as a terminal would if it is a terminal's, and set the limit.

        SIGTERM goes to the process alone: one that hands it on would give it twice to the rest.
        """
        self.kill_at = min(self.kill_at, kill_at)
        if number in {signal.SIGINT, signal.SIGQUIT}:
            self._signal_group(number)
        elif self.status is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End every process of the group."""
        self.kill_at = NEVER
        self._signal_group(signal.SIGKILL)

    def forward(self, number: int) -> None:
        """Hand a signal on, if the process still runs."""
        if self.status is None:
            os.kill(self.pid, number)

    def look(self) -> None:
        """Note whether the process has ended; it stays a zombie, which keeps its group's id."""
        if self.status is not None:
            return
        if hasattr(os, "waitid"):
            raw = children.peek(self.pid)
        else:
            raw = children.waitpid_nohang(self.pid)
            self._taken = raw is not None
        if raw is not None:
            self.status = children.exit_status(raw)
            self.description = children.describe_status(raw)

    def stopped_for_terminal(self) -> bool:
        """Return whether the process was stopped since the last call, for want of the terminal."""
        if self.status is not None:
            return False
        number = children.read_stop(self.pid)
        return number in {signal.SIGTTIN, signal.SIGTTOU}

    def reap(self) -> bool:
        """Return whether nothing of it is left; take the process away then.

        What it left behind in its group is asked to stop, once.
        """
        if self.status is None:
            return False
        if children.list_group(self.pid):
            if not self._rest_told:
                self._rest_told = True
                self._signal_group(signal.SIGTERM)
            return False
        if not self._taken:
            children.waitpid(self.pid)
        self.close()
        return True

    def list_pids(self) -> tuple[int, ...]:
        """Return the processes of its group that run, as far as /proc tells."""
        return children.list_group(self.pid)

    def close(self) -> None:
        """Hear no more of it."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    def _spawn(self, recipe: Recipe, still_ignored: Collection[int]) -> int:
        argv: Sequence[str] = (spawn.find_program(recipe.argv[0]), *recipe.argv[1:])
        environment = passing.make_environment(os.environ, [each.name for each in recipe.held])
        if self._receiver is not None:
            environment["NOTIFY_SOCKET"] = self._receiver.address
        if recipe.held and recipe.with_pid:
            argv = passing.with_own_pid(argv)
        places = {passing.FIRST_FD + index: each.fd for index, each in enumerate(recipe.held)}
        return spawn.spawn(
            argv,
            environment,
            places,
            still_ignored=still_ignored,
            # Not in ours: what a command leaves behind would go on accepting, with old code.
            own_group=True,
        )

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # macOS says "not permitted" of a group of zombies


def _open_receiver() -> notify_receiver.Receiver | None:
    if sys.platform != "linux":
        return None  # a name without a file is only there
    return notify_receiver.open_receiver(f"@forkfirst-{os.getpid()}-{os.urandom(8).hex()}")


def _is_in_own_session(pid: int) -> bool:
    try:
        return pid != 0 and os.getsid(pid) == os.getsid(0)
    except OSError:
        return False  # gone, or another user's
