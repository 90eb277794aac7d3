"""Waiting without knowing on what: a blocked thread, asyncio and trio take the same steps.

What is to be done is a generator that yields each `Wait` it needs and is sent whether that came
true. So there is one text of it, and nobody's loop is ever blocked. Whoever is interrupted or
cancelled has the exception thrown into the generator, which may still wait while it tidies up.
"""

from __future__ import annotations

import select
import sys
import time

from forkfirst.errors import UsageError
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")

PAUSE = -1
"""The descriptor of a wait for time only."""


class Wait(Value):
    """What is waited for.

    Attributes:
        fd: The descriptor, or `PAUSE`.
        writing: Whether it shall be writable, and not readable.
        seconds: At most so long; None is for ever.
    """

    fd: int = PAUSE
    writing: bool = False
    seconds: float | None = None


if TYPE_CHECKING:
    Work: TypeAlias = Generator[Wait, bool, T]


def run(work: Work[T]) -> T:
    """Do *work*, blocking this thread while it waits."""
    step, argument = _begin(work)
    while True:
        try:
            wait = step(argument)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            step, argument = work.send, _wait_blocking(wait)
        except BaseException as error:  # noqa: BLE001 - Ctrl-C: the work tidies up and passes it on
            step, argument = work.throw, error


async def run_async(work: Work[T]) -> T:
    """Do *work* on the loop that runs here; never blocks it.

    Raises:
        UsageError: Neither asyncio nor trio runs here.
    """
    pause = _find_loop()
    step, argument = _begin(work)
    is_over = False  # whether it was cancelled, and only tidies up
    while True:
        try:
            wait = step(argument)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            step, argument = work.send, await pause(wait, is_over)
        except BaseException as error:  # noqa: BLE001 - cancellation: as above
            step, argument = work.throw, error
            is_over = True


def _begin(work: Work[T]) -> tuple[Callable[[Any], Wait], Any]:
    return work.send, None


def _wait_blocking(wait: Wait) -> bool:
    if wait.fd == PAUSE:
        time.sleep(wait.seconds or 0)
        return False
    poll = select.poll()
    poll.register(wait.fd, select.POLLOUT if wait.writing else select.POLLIN)
    return bool(poll.poll(None if wait.seconds is None else wait.seconds * 1000))


# Neither runtime is imported: where one runs, it is there already.


def _find_loop() -> Callable[[Wait, bool], Awaitable[bool]]:
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    if asyncio is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 - public to libraries
        return _wait_on_asyncio
    if trio is not None and trio.lowlevel.in_trio_run():
        return _wait_on_trio
    message = "neither asyncio nor trio runs here"
    raise UsageError(message, hint="where nothing runs, use the function that blocks")


async def _wait_on_asyncio(wait: Wait, _: bool) -> bool:  # noqa: FBT001 - the shape of both
    loop: Any = sys.modules["asyncio"].get_running_loop()
    came: Any = loop.create_future()

    def resolve(value: bool) -> None:  # noqa: FBT001 - a callback
        if not came.done():
            came.set_result(value)

    timer = None if wait.seconds is None else loop.call_later(wait.seconds, resolve, False)  # noqa: FBT003
    if wait.fd != PAUSE:
        add = loop.add_writer if wait.writing else loop.add_reader
        add(wait.fd, resolve, True)  # noqa: FBT003 - the callback's argument
    try:
        return bool(await came)
    finally:
        if timer is not None:
            timer.cancel()
        if wait.fd != PAUSE:
            (loop.remove_writer if wait.writing else loop.remove_reader)(wait.fd)


async def _wait_on_trio(wait: Wait, is_over: bool) -> bool:  # noqa: FBT001 - the shape of both
    trio: Any = sys.modules["trio"]
    seconds = float("inf") if wait.seconds is None else wait.seconds
    with trio.move_on_after(seconds, shield=is_over) as scope:
        if wait.fd == PAUSE:
            await trio.sleep_forever()
        elif wait.writing:
            await trio.lowlevel.wait_writable(wait.fd)
        else:
            await trio.lowlevel.wait_readable(wait.fd)
    return not scope.cancelled_caught
