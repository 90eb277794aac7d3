"""The program without a runtime: a plain function, which may make a loop of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from forkfirst import errors
from forkfirst.runtime import ending, target
from forkfirst.runtime.accepting import Accepting
from forkfirst.runtime.stopping import Stopped, Stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.runtime.context import Context

_WAKES_FROM_ACCEPT = signal.SIGURG
"""Ignored by default, and so by whoever sends it to a program that does not want it."""


def run(main: Callable[..., object], context: Context) -> int:
    """Call *main* until it returns or is stopped, and return the exit status.

    A stop raises `Stopped`, a SystemExit, in the main thread, so `finally` blocks and context
    managers run; unless the program waits with `context.wait_stopping_blocking`. Where the program
    is inside `asyncio.run` or `trio.run`, that is ended in its own way. Where it has set a handler
    of its own for SIGTERM, as `uvicorn.run` does, it has taken the stop over: the context is not
    told, and the grace period is the manager's to keep.

    A main that does not take the context is ready when it is entered: nothing can be known about a
    function that only blocks. Call it in the main thread. Tracebacks go to stderr. See `ending` and
    `stopping` for the rest.

    Raises:
        TargetError: *main* cannot be called with the context alone, or returned a coroutine.
    """
    wants_context = target.wants_context(main)
    end = ending.Ending(context)
    stopping = Stopping(context)
    stopping.install()
    for _, fd in context.descriptors:
        os.set_blocking(fd, True)  # what a plain function expects of accept
    _let_pause(context)
    try:
        try:
            stopping.attach(_end, _schedule, needs_main_thread=True)
            if not wants_context:
                context.ready()
            result = target.call(main, context)
        finally:
            stopping.detach()  # inside: a stop that is raised just here must not escape either
    except BaseException as error:  # noqa: BLE001 - each end of a program is a status
        end.raised(error)
    else:
        _refuse_coroutine(result)
        end.returned(result)
    finally:
        stopping.detach()
    return end.status


def _let_pause(context: Context) -> None:
    """Let the supervisor pause the program, though its threads may be blocked in accept(2).

    It goes on accepting when it is to stop: a thread that has to be woken from that call, as by a
    last connection to itself, is the program's own matter.
    """
    accepting = Accepting(context)

    def pause() -> None:
        accepting.pause()
        _wake_all()

    def resume() -> None:
        accepting.resume()
        _wake_all()

    if context.supervised and signal.getsignal(_WAKES_FROM_ACCEPT) == signal.SIG_DFL:
        signal.signal(_WAKES_FROM_ACCEPT, lambda _, __: None)  # what is ignored interrupts nothing
    context.pause_accepting, context.resume_accepting = pause, resume


def _wake_all() -> None:
    """Have each thread that is blocked in accept(2) call it again, on what has the number now."""
    for thread in threading.enumerate():
        with suppress(ProcessLookupError):  # it has ended
            signal.pthread_kill(thread.ident or 0, _WAKES_FROM_ACCEPT)


def _schedule(callback: Callable[[], object]) -> None:
    """Call *callback* where it can end what the main thread is in. Runs in its signal handler.

    Inside a loop that is between two callbacks: to raise in the middle of a scheduler's own code
    would break it.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        trio.lowlevel.current_trio_token().run_sync_soon(callback)
        return
    asyncio = sys.modules.get("asyncio")
    # The function without the underscore raises where there is none.
    loop = asyncio._get_running_loop() if asyncio is not None else None  # noqa: SLF001
    if loop is not None:
        loop.call_soon_threadsafe(callback)
    else:
        callback()


def _end() -> None:
    """End the program, whatever runs it."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        # An exception here would be an error of trio itself. Of the nurseries that are trio's own,
        # the innermost holds nothing but the program's main task.
        trio.lowlevel.current_root_task().child_nurseries[-1].cancel_scope.cancel()
    else:
        raise Stopped


def _refuse_coroutine(result: object) -> None:
    if hasattr(result, "__await__"):
        close = getattr(result, "close", None)
        if close is not None:
            close()  # or Python would warn that it was never awaited
        message = "the program returned a coroutine, and there is no runtime to await it"
        raise errors.TargetError(message, hint="declare it with `async def`, or give --runtime")
