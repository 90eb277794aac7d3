"""The program on asyncio's own loop."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from contextlib import contextmanager, suppress

from forkfirst import errors
from forkfirst.runtime import ending, target
from forkfirst.runtime.pulse import PulsingSelector
from forkfirst.runtime.stopping import STOP_SIGNALS, Stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVarTuple

    from forkfirst.runtime.context import Context

    Arguments = TypeVarTuple("Arguments")

_KEEPS_SOCKETS = sys.version_info >= (3, 13)  # or rather has a reason to: `cleanup_socket` is new


class ServiceLoop(asyncio.AbstractEventLoop):
    """What a service's loop does otherwise: mixed into asyncio's loop, and into uvloop's.

    SIGTERM and SIGINT belong to the service. A program's own handler for them (hypercorn and
    aiohttp set one, uvicorn does it behind the loop's back) is called as well, and then the program
    counts as one that stops by itself: told, given the grace period, and not cancelled before.

    A listener that the program was given is not the program's to remove: CPython 3.13 and later,
    and uvloop with them, unlink the path of any unix socket that they serve unless told otherwise,
    and the next start, or systemd's socket unit, would be deaf.
    """

    stopping: Stopping

    def watch(self, stopping: Stopping) -> None:
        """Let the stop signals wake this loop and reach *stopping*.

        Only add_signal_handler sets the loop's wake-up descriptor, without which a signal that
        comes just before the wait would be noticed after it. The handler itself is then ours again,
        because the loop's would be called at the end of the callback that is running: never, if
        that is stuck.
        """
        self.stopping = stopping
        self._own_handlers: dict[int, Callable[[], object]] = {}
        for number in STOP_SIGNALS:
            super().add_signal_handler(number, self._on_turn, int(number))
        stopping.is_handled = self._own_handlers.__contains__
        stopping.install()

    def add_signal_handler(
        self, sig: int, callback: Callable[[*Arguments], object], *args: *Arguments
    ) -> None:
        """Add a handler; for a stop signal, beside the service's own."""
        if sig in STOP_SIGNALS:
            self._own_handlers[sig] = lambda: callback(*args)
        else:
            super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove the program's handler; never the service's, not even when the loop closes."""
        if sig in STOP_SIGNALS:
            return self._own_handlers.pop(sig, None) is not None
        return super().remove_signal_handler(sig)

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        """Create a server; a socket that was given, not made here, keeps its queue."""
        with _keeping_queue(kwargs):
            return await super().create_server(*args, **kwargs)

    async def create_unix_server(self, *args: Any, **kwargs: Any) -> Any:
        """Create a unix server; a socket that was given keeps its path and its queue."""
        if _KEEPS_SOCKETS and kwargs.get("sock") is not None:
            kwargs.setdefault("cleanup_socket", False)
        with _keeping_queue(kwargs):
            return await super().create_unix_server(*args, **kwargs)

    def _on_turn(self, number: int) -> None:
        own = self._own_handlers.get(number)
        if own is not None:
            own()
        elif signal.getsignal(number) != self.stopping.on_signal:
            self.stopping.on_signal(number, handled=True)  # somebody else has been called for it

    def close(self) -> None:
        """Close the loop; a signal that comes later wakes nobody."""
        signal.set_wakeup_fd(-1)  # the loop closes it, and its number may be somebody else's then
        super().close()


class _Loop(ServiceLoop, asyncio.SelectorEventLoop):
    pass


@contextmanager
def _keeping_queue(options: Mapping[str, Any]) -> Iterator[None]:
    """Undo what asyncio and uvloop do to the queue of a given listener: they cut it to 100.

    The next one who comes then waits for a second, and tries again: 72 s for ten thousand at once.
    A program that says itself how long it is to be has its way.
    """
    listener: socket.socket | None = options.get("sock")
    if listener is None or "backlog" in options:
        yield
        return
    waiting = _read_queue_limit(listener)
    yield
    with suppress(OSError):
        listener.listen(waiting)  # the kernel changes its limit, and nothing else


def _read_queue_limit(listener: socket.socket) -> int:
    """Return how many may wait for *listener*; the kernel's own limit where it does not tell.

    Source: TCP_INFO in tcp(7): of a listener, tcpi_sacked is the limit of its queue.
    """
    import socket  # noqa: PLC0415 - asyncio has it

    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    except (OSError, AttributeError):  # not TCP, or not Linux
        return socket.SOMAXCONN
    return int.from_bytes(info[28:32], sys.byteorder) or socket.SOMAXCONN


def run(main: Callable[..., object], context: Context) -> int:
    """Run *main* on asyncio until it ends or is stopped, and return the exit status.

    Call it in the main thread. Tracebacks go to stderr. See `ending` and `stopping` for the rest.

    Raises:
        TargetError: *main* cannot be called with the context alone.
    """

    def make_loop() -> _Loop:
        selector = PulsingSelector(context.pulse)
        loop = _Loop(selector)
        listeners = [fd for _, fd in context.descriptors]
        # Not by closing them: the program holds them too, and may be told to go on.
        context.pause_accepting = in_thread_of(loop, lambda: selector.pause(listeners))
        context.resume_accepting = in_thread_of(loop, selector.resume)
        context.end_accepting = context.pause_accepting
        return loop

    return run_on(make_loop, main, context)


def in_thread_of(loop: ServiceLoop, act: Callable[[], object]) -> Callable[[], object]:
    """Return what does *act* in this thread, which is the loop's: at once if it is called there."""
    own = threading.get_ident()

    def do() -> None:
        if threading.get_ident() == own:
            act()
        else:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(act)

    return do


def run_on(
    make_loop: Callable[[], ServiceLoop], main: Callable[..., object], context: Context
) -> int:
    """Run *main* on the loop that *make_loop* makes, as `run` does."""
    target.wants_context(main)  # refused here it is a mistake, and later it would be a traceback
    end = ending.Ending(context)
    stopping = Stopping(context)
    runner = asyncio.Runner(loop_factory=make_loop)
    loop: Any = _make_loop(runner)  # a ServiceLoop
    try:
        with runner:
            loop.watch(stopping)
            context.describe_tasks = lambda: _describe_tasks(loop)
            try:
                runner.run(_drive(main, context, stopping, end))
            except BaseException as error:  # noqa: BLE001 - sys.exit in another task than main's
                end.raised(error)  # before the runner cancels main: that is then no failure
    except BaseException as error:  # noqa: BLE001 - the same, while the runner cleans up
        end.raised(error)
    finally:
        stopping.detach()
    return end.status


def _make_loop(runner: asyncio.Runner) -> asyncio.AbstractEventLoop:
    try:
        return runner.get_loop()
    except OSError as error:
        message = f"cannot make an event loop: {(error.strerror or str(error)).lower()}"
        raise errors.SystemRefusedError(message) from error


async def _drive(
    main: Callable[..., object], context: Context, stopping: Stopping, end: ending.Ending
) -> None:
    loop = asyncio.get_running_loop()
    task: Any = asyncio.current_task()  # this one: never None

    def schedule(callback: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: it has ended meanwhile
            loop.call_soon_threadsafe(callback)

    def after_first_step() -> None:
        if not end.has_ended:
            context.ready()

    stopping.attach(task.cancel, schedule)
    try:
        if not target.wants_context(main):
            loop.call_soon(after_first_step)  # runs in the loop's next turn
        result = target.call(main, context)
        if hasattr(result, "__await__"):
            result = await result
        end.returned(result)
    except BaseException as error:  # noqa: BLE001 - each end of a program is a status
        end.raised(error)


def _describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    from forkfirst.runtime import stacks  # noqa: PLC0415 - only when somebody asks

    return stacks.describe_asyncio_tasks(loop)
