"""The program on trio."""

from __future__ import annotations

import time
from contextlib import suppress

import trio

from forkfirst.runtime import ending, target
from forkfirst.runtime.accepting import Accepting
from forkfirst.runtime.stopping import Stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkfirst.runtime.context import Context
    from forkfirst.runtime.pulse import Pulse


class _PulseInstrument(trio.abc.Instrument):
    """Notes when trio's loop enters and leaves its wait."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's signature
        self._pulse.left_at = 0.0

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's signature
        self._pulse.left_at = time.monotonic()

    def after_run(self) -> None:
        self._pulse.left_at = 0.0


def run(main: Callable[..., object], context: Context) -> int:
    """Run *main* on trio until it ends or is stopped, and return the exit status.

    Call it in the main thread. Tracebacks go to stderr. See `ending` and `stopping` for the rest.
    A program that receives SIGTERM itself (`trio.open_signal_receiver`) has taken the stop over:
    the context is not told, and the grace period is the manager's to keep.

    Raises:
        TargetError: *main* cannot be called with the context alone.
    """
    target.wants_context(main)  # refused here it is a mistake, and later it would be a traceback
    end = ending.Ending(context)
    stopping = Stopping(context)
    stopping.install()  # first: trio takes SIGINT only where nobody has
    try:
        trio.run(
            _drive, main, context, stopping, end, instruments=[_PulseInstrument(context.pulse)]
        )
    except BaseException as error:  # noqa: BLE001 - an end of trio itself
        end.raised(error)
    finally:
        stopping.detach()
    return end.status


async def _drive(
    main: Callable[..., object], context: Context, stopping: Stopping, end: ending.Ending
) -> None:
    token = trio.lowlevel.current_trio_token()
    root = trio.lowlevel.current_root_task()
    context.describe_tasks = lambda: _describe_tasks(root)

    def schedule(callback: Callable[[], object]) -> None:
        with suppress(trio.RunFinishedError):  # it has ended meanwhile
            token.run_sync_soon(callback)

    def after_first_step() -> None:
        if not end.has_ended:
            context.ready()

    accepting = Accepting(context)
    context.pause_accepting = lambda: schedule(accepting.pause)
    context.resume_accepting = lambda: schedule(accepting.resume)
    context.end_accepting = context.pause_accepting
    try:
        with trio.CancelScope() as scope:
            stopping.attach(scope.cancel, schedule)
            if not target.wants_context(main):
                token.run_sync_soon(after_first_step)  # runs in a later turn than main's first
            result = target.call(main, context)
            if hasattr(result, "__await__"):
                result = await result
            end.returned(result)
    except BaseException as error:  # noqa: BLE001 - each end of a program is a status
        end.raised(error)
    else:
        if not end.has_ended:  # the scope took the cancellation: main ended by the stop
            end.returned(None)


def _describe_tasks(root: trio.lowlevel.Task | None) -> str:
    from forkfirst.runtime import stacks  # noqa: PLC0415 - only when somebody asks

    return stacks.describe_trio_tasks(root)
