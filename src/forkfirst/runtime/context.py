"""What a program is given: its listeners, its voice, and the wish that it stop.

The same object on every runtime. A program that wants it takes one parameter, and then it is ready
when it says so; a program that does not is ready when its first step ran.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from _thread import allocate_lock
from contextlib import contextmanager, suppress

from forkfirst import errors
from forkfirst.runtime.pulse import Pulse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import ModuleType

_DEFAULT_GRACE_SECONDS = 10.0
_TURNS_TO_A_HANDLER = 4
"""From accept(2) to the first step of whoever handles the connection, in turns of asyncio's loop.

A server that is closed before drops the connection: in CPython by a failed assertion.
"""


def _ignore(_: str = "") -> None:
    """Tell nobody: what a context does that a program's own test makes."""


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
        pause_accepting: Take no new connections, from the runtime's loop; see `runtime.asyncio_`.
        resume_accepting: Take them again.
    """

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
        self.pause_accepting: Callable[[], object] = _ignore
        self.resume_accepting: Callable[[], object] = _ignore
        self._descriptors = tuple(listeners)
        self._sockets: dict[str, tuple[socket.socket, ...]] | None = None
        self._connected = connection
        self._connection: socket.socket | None = None
        self._on_ready = on_ready
        self._on_status = on_status
        self._on_stopping = on_stopping
        self._making = allocate_lock()
        self._first_ready = allocate_lock()  # taken for good by whoever says ready first
        self._stopping = False
        self._cooperative = False
        self._wakers: list[Callable[[], None]] = []
        self._pipe: tuple[int, int] | None = None

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

        Only the first call counts; a later one with a *status* only tells the status.
        """
        if self._first_ready.acquire(blocking=False):
            self._on_ready(status)
        elif status:
            self._on_status(status)

    def status(self, text: str) -> None:
        """Tell in one line what the program is doing, for `forkfirst status` and the manager."""
        self._on_status(text)

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
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_task():
            await self._wait_on_trio(trio)
        else:
            await self._wait_on_asyncio()

    def wait_stopping_blocking(self, seconds: float | None = None) -> bool:
        """Wait like `wait_stopping`, for plain functions; return whether a stop was asked for.

        Blocks this thread, at most *seconds*; None waits without limit.
        """
        self._cooperative = True
        receiver, sender = self._open_wakeup()
        poll = select.poll()
        poll.register(receiver, select.POLLIN)
        deadline = None if seconds is None else time.monotonic() + seconds
        with _woken_by_signals(sender):
            while not self._stopping:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                came = poll.poll(None if left is None else left * 1000)
                if not came and left is not None:
                    break
                if not self._stopping:
                    _drain(receiver)  # another signal's byte
        return self._stopping

    # -- for the runtimes ----------------------------------------------------------------------

    @property
    def descriptors(self) -> tuple[tuple[str, int], ...]:
        """The listeners as they came: names and descriptors."""
        return self._descriptors

    @property
    def is_cooperative(self) -> bool:
        """Whether the program has waited for the stop, and so will end by itself."""
        return self._cooperative

    def begin_stopping(self) -> None:
        """Tell everybody, once, that the program is to stop. A signal handler may call it."""
        if self._stopping:
            return
        self._stopping = True
        try:
            self._on_stopping()
        finally:
            if self._pipe is not None:
                _nudge(self._pipe[1])
            for wake in tuple(self._wakers):
                wake()

    def _open_wakeup(self) -> tuple[int, int]:
        """Return the pipe that wakes `wait_stopping_blocking`, made when first asked for.

        Nobody closes it: a thread may still be waiting on it when main has ended.
        """
        with self._making:
            if self._pipe is None:
                self._pipe = _open_pipe()
        if self._stopping:
            _nudge(self._pipe[1])
        return self._pipe

    async def _wait_on_trio(self, trio: ModuleType) -> None:
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)

        self._wakers.append(wake)
        try:
            if not self._stopping:
                await event.wait()
        finally:
            self._wakers.remove(wake)

    async def _wait_on_asyncio(self) -> None:
        import asyncio  # noqa: PLC0415 - whoever runs this has it already

        event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(event.set)

        self._wakers.append(wake)
        try:
            if not self._stopping:
                await event.wait()
                for _ in range(_TURNS_TO_A_HANDLER if self.supervised else 0):
                    await asyncio.sleep(0)
        finally:
            self._wakers.remove(wake)


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


def _open_pipe() -> tuple[int, int]:
    receiver, sender = os.pipe()
    os.set_blocking(receiver, False)
    os.set_blocking(sender, False)
    return receiver, sender


@contextmanager
def _woken_by_signals(sender: int) -> Iterator[None]:
    """Let every signal write to *sender*, in the main thread and if nobody else has that already.

    A signal that arrives just before a wait does not interrupt it, and its Python handler would
    only run when something else does.
    """
    before = -1
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)  # an event loop's
    try:
        yield
    finally:
        if is_main and before == -1:
            signal.set_wakeup_fd(-1)


def _nudge(sender: int) -> None:
    with suppress(BlockingIOError):  # full: whoever waits is awake anyway
        os.write(sender, b"\0")


def _drain(receiver: int) -> None:
    with suppress(BlockingIOError):  # another thread was faster
        os.read(receiver, 4096)
