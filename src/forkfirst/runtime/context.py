"""What a program is given: its listeners, its voice, and the wish that it stop.

The same object on every runtime. A program that wants it takes one parameter, and then it is ready
when it says so; a program that does not is ready when its first step ran.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from forkfirst import errors
from forkfirst.runtime.pulse import Pulse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    import socket
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from forkfirst.runtime.outside import Outside, Reloads

_DEFAULT_GRACE_SECONDS = 10.0
_TURNS_TO_A_HANDLER = 4
"""From accept(2) to the first step of whoever handles the connection, in turns of asyncio's loop.

A server that is closed before drops the connection: in CPython by a failed assertion.
"""


def _ignore(_: str = "") -> None:
    """Tell nobody: what a context does that a program's own test makes."""


def _ignore_all(*_: object, **__: object) -> None:
    """Pass nothing on."""


class Context:
    """The service as its program sees it. All of it may be used from any thread.

    Attributes:
        name: The service's name.
        grace_seconds: How long the program may take to stop, counted from the first signal.
        pulse: For the control thread: whether the runtime turns (see `pulse`).
        describe_tasks: For the control thread: the await chains of all tasks, as text.
        healthy: For the program to replace, and asked where a reload is watched (`--canary`,
            `--commit-window`): whether this process serves well. It may return False, or a text
            that says why not, or raise. It is called in another thread than the program's.
        supervised: Whether this is a worker, whose supervisor keeps the time of its stop.
        held_outside: Whether somebody else holds its listeners too, and with them whoever waits to
            be accepted: then nobody is accepted any more once it is to stop.
        pause_accepting: Take no new connections; see `runtime.asyncio_`, `runtime.accepting`.
        resume_accepting: Take them again.
        end_accepting: Take none any more, because the program is to stop.
        failure: What the program ended by, if that was a failure.
        ended_by_itself: Whether it has ended though nobody had asked it to.
        outside: Who manages the service, or None; see `runtime.outside`.
        stored_descriptors: Name and descriptor of what was kept for it, and not taken yet.
        directories: Where its directories are, by the variables that may say otherwise.
        relay: Passes on what a command has said to its manager.
        succeed: Begins a reload by a successor; returns whether this process may have one.
        count_served: What `served` counts with.
    """

    count_served: Callable[[int], object] = staticmethod(_ignore_all)

    def __init__(  # noqa: PLR0913 - each is a fact of its own, and all are keywords
        self,
        *,
        name: str,
        listeners: Iterable[tuple[str, int]] = (),
        on_ready: Callable[[str], None] = _ignore,
        on_status: Callable[[str], None] = _ignore,
        on_stopping: Callable[[], None] = _ignore,
        grace_seconds: float = _DEFAULT_GRACE_SECONDS,
        connection: int = -1,
    ) -> None:
        self.name = name
        self.grace_seconds = grace_seconds
        self.pulse: Pulse = Pulse()
        self.describe_tasks: Callable[[], str] = str
        self.healthy: Callable[[], object] = lambda: True
        self.supervised = False
        self.held_outside: bool = False
        self.pause_accepting: Callable[[], object] = _ignore
        self.resume_accepting: Callable[[], object] = _ignore
        self.end_accepting: Callable[[], object] = _ignore
        self.failure: BaseException | None = None
        self.ended_by_itself = False
        self.outside: Outside | None = None
        self.stored_descriptors: list[tuple[str, int]] = []
        self.directories: Mapping[str, str] = {}
        self.relay: Callable[..., object] = _ignore_all
        self.succeed: Callable[[], bool] = lambda: False
        self._reloads: Reloads | None = None
        self._descriptors = tuple(listeners)
        self._sockets: dict[str, tuple[socket.socket, ...]] | None = None
        self._connected = connection
        self._connection: socket.socket | None = None
        self._on_ready = on_ready
        self._on_status = on_status
        self._on_stopping = on_stopping
        self._making = allocate_lock()
        self._first_ready = allocate_lock()  # taken for good by whoever says ready first
        self._stopping = self._cooperative = False
        self._wakers: list[Callable[[], None]] = []

    # -- for the program -----------------------------------------------------------------------

    @property
    def listeners(self) -> Mapping[str, tuple[socket.socket, ...]]:
        """The listening sockets by name, in the order in which they were declared.

        They are open, bound and listening; a name may have several. Each is made once: who closes
        one closes it for the service. `asyncio.start_server(handle, sock=...)` takes TCP and unix
        ones alike, and never removes a unix one's path.
        """
        with self._making:
            if self._sockets is None:
                self._sockets = _make_sockets(self._descriptors)
            return self._sockets

    def listener(self, name: str | None = None) -> socket.socket:
        """Return the listening socket called *name*, or the only one if no name is given.

        Raises:
            UsageError: There is none of that name, or more than one to choose from.
        """
        found = self.listeners
        every = [one for sockets in found.values() for one in sockets]
        chosen = every if name is None else list(found.get(name, ()))
        if len(chosen) == 1:
            return chosen[0]
        wanted = "a listener" if name is None else f"the listener {name!r}"
        if chosen:
            message = f'"{self.name}" asks for {wanted}, and there are {len(chosen)}'
            raise errors.UsageError(message, hint="take one by name, or from context.listeners")
        there = ", ".join(repr(one) for one in found) or "none"
        message = f'"{self.name}" asks for {wanted}, which was not declared; declared: {there}'
        raise errors.UsageError(message, hint=f"give it with --listen {name or 'NAME'}=ADDRESS")

    @property
    def connection(self) -> socket.socket:
        """The one connection that this process was started for (`--inetd`, `Accept=yes`).

        Raises:
            UsageError: It was not started for one.
        """
        with self._making:
            if self._connection is None:
                if self._connected < 0:
                    message = f'"{self.name}" asks for a connection, and was not started for one'
                    hint = "start it with --inetd, from a socket unit with Accept=yes"
                    raise errors.UsageError(message, hint=hint)
                self._connection = _make_socket(self._connected)
            return self._connection

    def ready(self, status: str = "") -> None:
        """Say that the program does its work now; `forkfirst start` waits for this.

        Only the first call counts, and one that ends a reload; any other only tells the *status*.
        """
        if self._first_ready.acquire(blocking=False):
            self._on_ready(status)
        elif self._reloads is not None and self._reloads.done(status):
            return
        elif status:
            self._on_status(status)

    def status(self, text: str) -> None:
        """Tell in one line what the program is doing, for `forkfirst status` and the manager."""
        self._on_status(text)

    def served(self, count: int = 1) -> None:
        """Say that so many requests were answered: `--max-requests` counts them.

        Only workers are counted. Any thread may call it; it waits for nobody.
        """
        self.count_served(count)

    @property
    def is_ready(self) -> bool:
        """Whether the program is ready, by its own word or by its first step."""
        return self._first_ready.locked()

    @property
    def stopping(self) -> bool:
        """Whether the program was asked to stop."""
        return self._stopping

    async def wait_stopping(self) -> None:
        """Wait until the program is asked to stop; return at once if it was.

        A program that called this stops by itself: it is cancelled only when the grace period has
        passed. Works under asyncio, uvloop, trio, and anyio on either, also in a loop that the
        program made itself, in any thread.
        """
        self._cooperative = True
        from forkfirst.runtime import waiting  # noqa: PLC0415 - after READY, as a rule

        await waiting.wait(lambda: self._stopping, self._wakers, turns=self._count_turns)

    def wait_stopping_blocking(self, seconds: float | None = None) -> bool:
        """Wait like `wait_stopping`, for plain functions; return whether a stop was asked for.

        Blocks this thread, at most *seconds*; None waits without limit.
        """
        self._cooperative = True
        from forkfirst.runtime import waiting  # noqa: PLC0415 - after READY, as a rule

        waiting.wait_blocking(lambda: self._stopping, self._wakers, seconds)
        return self._stopping

    async def wait_reload(self) -> None:
        """Wait until somebody wants a reload: SIGHUP, as `systemctl reload` sends it.

        The reload is done when this is called again, or when `ready` is: a manager is told of both
        (RELOADING=1, then READY=1), as `Type=notify-reload` wants it. Works on every runtime; the
        first call must be in the main thread. For a program that never calls it, SIGHUP is what
        `forkfirst reload` is: another process, with the new code, takes over.
        """
        await self.take_reloads().wait()

    # -- what outlives the program -----------------------------------------------------------------

    def store(self, fd: int, name: str) -> bool:
        """Have the manager keep a copy of *fd*, which the next start finds by *name*.

        Needs `FileDescriptorStoreMax=` in the unit. Kept over restarts and crashes, and lost when
        the service is stopped. One that hangs up is dropped. A listening socket comes back in
        `listeners`, everything else by `stored`. Listeners that were declared are kept unasked.

        Returns:
            Whether somebody keeps it: False where there is no manager that could.

        Raises:
            UsageError: The name is not one: ASCII, without colons, and not one of forkfirst's own,
                which begin with `forkfirst/`.
        """
        is_kept = self.outside is not None and self.outside.keep(fd, name)
        if is_kept and any(fd == one for _, one in self._descriptors):
            self.held_outside = True  # its queue is the next start's
        return is_kept

    def stored(self, name: str) -> tuple[int, ...]:
        """Return the descriptors that were kept as *name*, in no order. They are the caller's now.

        They also stay in the store, until `forget`.
        """
        taken = tuple(fd for kept, fd in self.stored_descriptors if kept == name)
        self.stored_descriptors = [one for one in self.stored_descriptors if one[0] != name]
        return taken

    def store_state(self, name: str, data: bytes) -> bool:
        """Have the manager keep *data* as *name*, in place of what was kept so before.

        It is in memory only: no disk is written, and it does not outlive the machine. As `store`.
        """
        if self.outside is None:
            return False
        from forkfirst.runtime import outside  # noqa: PLC0415 - only for who keeps something

        fd = outside.make_state(name, data)
        try:
            return self.outside.forget(name) and self.outside.keep(fd, name)
        finally:
            os.close(fd)

    def stored_state(self, name: str) -> bytes | None:
        """Return what `store_state` kept as *name* before this start, or None."""
        found = self.stored(name)
        if not found:
            return None
        from forkfirst.runtime import outside  # noqa: PLC0415 - as above

        try:
            return outside.read_state(found[0])
        finally:
            for fd in found:
                os.close(fd)

    def forget(self, name: str) -> None:
        """Have the manager close what it keeps as *name*: else a peer never sees the hang-up."""
        if self.outside is not None:
            self.outside.forget(name)

    # -- places ------------------------------------------------------------------------------------

    @property
    def state_directory(self) -> Path:
        """What must not be lost: `$STATE_DIRECTORY`, or forkfirst's own; made if it is not there.

        Raises:
            CannotCreateError: It is not there, and this user cannot make it.
        """
        return self._directory("STATE_DIRECTORY")

    @property
    def runtime_directory(self) -> Path:
        """What may go with the next boot: `$RUNTIME_DIRECTORY`; as `state_directory`."""
        return self._directory("RUNTIME_DIRECTORY")

    @property
    def cache_directory(self) -> Path:
        """What can be made anew: `$CACHE_DIRECTORY`; as `state_directory`."""
        return self._directory("CACHE_DIRECTORY")

    @property
    def logs_directory(self) -> Path:
        """Logs beside the service's own: `$LOGS_DIRECTORY`; as `state_directory`."""
        return self._directory("LOGS_DIRECTORY")

    @property
    def credentials_directory(self) -> Path | None:
        """Secrets, one a file: `$CREDENTIALS_DIRECTORY`, or None where nobody has given any."""
        return self._directory("CREDENTIALS_DIRECTORY") if _has_credentials() else None

    def journal_handler(self) -> logging.Handler | None:
        """Return a handler for `logging` that writes entries with levels and fields to the journal.

        None where stderr is not the journal's. Without it, a program that configures no logging has
        its warnings there all the same, with their levels.
        """
        from forkfirst.systemd import journal  # noqa: PLC0415 - only under the journal

        return journal.make_handler(self.name) if journal.is_journal(2, os.environ) else None

    def _directory(self, variable: str) -> Path:
        from pathlib import Path  # noqa: PLC0415 - only for a program that asks

        from forkfirst.runtime import outside  # noqa: PLC0415 - as above

        return Path(outside.find_directory(variable, self.directories.get(variable, "")))

    # -- for the runtimes ----------------------------------------------------------------------

    @property
    def descriptors(self) -> tuple[tuple[str, int], ...]:
        """The listeners as they came: names and descriptors."""
        return self._descriptors

    @property
    def is_cooperative(self) -> bool:
        """Whether the program has waited for the stop, and so will end by itself."""
        return self._cooperative

    def take_reloads(self) -> Reloads:
        """Return what SIGHUP is made into; it is taken from the first call on."""
        if self._reloads is None:
            from forkfirst.runtime import outside  # noqa: PLC0415 - only for who reloads

            self._reloads = outside.Reloads(
                self.name, self.outside or outside.NobodyOutside(), self.succeed
            )
            self._reloads.install()
        return self._reloads

    def _count_turns(self) -> int:
        # Asked when it stops: that somebody else has the listeners as well may be new by then.
        return _TURNS_TO_A_HANDLER if self.supervised or self.held_outside else 0

    def begin_stopping(self) -> None:
        """Tell everybody, once, that the program is to stop. A signal handler may call it."""
        if self._stopping:
            return
        self._stopping = True
        try:
            if self.held_outside:
                self.end_accepting()
            self._on_stopping()
        finally:
            for wake in tuple(self._wakers):
                wake()


def _has_credentials() -> bool:
    return bool(os.environ.get("CREDENTIALS_DIRECTORY"))


def _make_sockets(
    descriptors: tuple[tuple[str, int], ...],
) -> dict[str, tuple[socket.socket, ...]]:
    if not descriptors:
        return {}
    found: dict[str, tuple[socket.socket, ...]] = {}
    for name, fd in descriptors:
        found[name] = (*found.get(name, ()), _make_socket(fd))
    return found


def _make_socket(fd: int) -> socket.socket:
    import socket  # noqa: PLC0415 - a program without listeners need not pay for it

    made = socket.socket(fileno=fd)
    made.setblocking(os.get_blocking(fd))  # the object believes that it blocks, unless told
    return made
