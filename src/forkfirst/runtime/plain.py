"""The program without a runtime: a plain function, which may make a loop of its own."""

from __future__ import annotations

import os
import sys

from forkfirst import errors
from forkfirst.runtime import ending, target
from forkfirst.runtime.stopping import Stopped, Stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.runtime.context import Context


def run(main: Callable[..., object], context: Context) -> int:
    """Call *main* until it returns or is stopped, and return the exit status.

    A stop raises `Stopped`, a SystemExit, in the main thread, so `finally` blocks and context
    managers run; unless the program waits with `context.wait_stopping_blocking`. Where the program
    is inside `asyncio.run` or `trio.run`, that is ended in its own way.

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
    try:
        try:
            stopping.attach(_interrupt, needs_main_thread=True)
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


def _interrupt() -> None:
    """End what the main thread is in. Runs in its signal handler."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        # To raise in the middle of trio's scheduler would break it. Its innermost own nursery
        # holds nothing but the program's main task.
        own = trio.lowlevel.current_root_task().child_nurseries[-1]
        trio.lowlevel.current_trio_token().run_sync_soon(own.cancel_scope.cancel)
        return
    asyncio = sys.modules.get("asyncio")
    # The function without the underscore raises where there is none.
    loop = asyncio._get_running_loop() if asyncio is not None else None  # noqa: SLF001
    if loop is not None:
        loop.call_soon_threadsafe(_raise_stopped)  # between two callbacks, not inside one
        return
    raise Stopped


def _raise_stopped() -> None:
    raise Stopped


def _refuse_coroutine(result: object) -> None:
    if hasattr(result, "__await__"):
        close = getattr(result, "close", None)
        if close is not None:
            close()  # or Python would warn that it was never awaited
        message = "the program returned a coroutine, and there is no runtime to await it"
        raise errors.TargetError(message, hint="declare it with `async def`, or give --runtime")
