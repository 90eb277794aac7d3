"""The program on uvloop: asyncio's interface, libuv's loop.

uvloop has no hook at its wait, so its pulse is asked for (see `pulse.AskedPulse`).
"""

from __future__ import annotations

import uvloop

from forkfirst.runtime import asyncio_
from forkfirst.runtime.accepting import Accepting
from forkfirst.runtime.pulse import AskedPulse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.runtime.context import Context


class _Loop(asyncio_.ServiceLoop, uvloop.Loop):  # type: ignore[misc]  # its stubs differ from the library's in names
    pass


def run(main: Callable[..., object], context: Context) -> int:
    """Run *main* on uvloop until it ends or is stopped, and return the exit status.

    Call it in the main thread. Tracebacks go to stderr. See `ending` and `stopping` for the rest.

    Raises:
        TargetError: *main* cannot be called with the context alone.
    """

    def make_loop() -> _Loop:
        loop = _Loop()
        context.pulse = AskedPulse(loop.call_soon_threadsafe)
        accepting = Accepting(context)
        context.pause_accepting = asyncio_.in_thread_of(loop, accepting.pause)
        context.resume_accepting = asyncio_.in_thread_of(loop, accepting.resume)
        context.end_accepting = context.pause_accepting
        return loop

    return asyncio_.run_on(make_loop, main, context)
