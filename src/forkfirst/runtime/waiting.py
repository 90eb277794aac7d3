"""Waiting for a wish of the outside, on whatever runs the waiting code: a loop, or a bare thread.

Who wishes calls every waker, from any thread or signal handler, after having noted the wish; who
waits has put a waker there before it looks. So no wish is missed between the look and the wait.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import TypeAlias

    Wakers: TypeAlias = list[Callable[[], None]]

_idle_pipes: list[tuple[int, int]] = []
"""Used again and never closed: a waker may still be on its way to one."""


def _no_turns() -> int:
    return 0


async def wait(
    is_wished: Callable[[], bool], wakers: Wakers, *, turns: Callable[[], int] = _no_turns
) -> None:
    """Wait until *is_wished*, under asyncio, uvloop, trio, or anyio on either.

    On asyncio's, so many *turns* of the loop pass after a wish that had to be waited for.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        await _wait_on_trio(trio, is_wished, wakers)
    else:
        await _wait_on_asyncio(is_wished, wakers, turns)


async def _wait_on_trio(trio: ModuleType, is_wished: Callable[[], bool], wakers: Wakers) -> None:
    event = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def wake() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(event.set)

    wakers.append(wake)
    try:
        if not is_wished():
            await event.wait()
    finally:
        wakers.remove(wake)


async def _wait_on_asyncio(
    is_wished: Callable[[], bool], wakers: Wakers, turns: Callable[[], int]
) -> None:
    import asyncio  # noqa: PLC0415 - whoever runs this has it already

    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # that loop is closed
            loop.call_soon_threadsafe(event.set)

    wakers.append(wake)
    try:
        if not is_wished():
            await event.wait()
            for _ in range(turns()):
                await asyncio.sleep(0)
    finally:
        wakers.remove(wake)


def wait_blocking(is_wished: Callable[[], bool], wakers: Wakers, seconds: float | None) -> bool:
    """Block this thread until *is_wished*, at most *seconds*; return whether it is."""
    receiver, sender = _take_pipe()

    def wake() -> None:
        with suppress(BlockingIOError):  # full: whoever waits is awake anyway
            os.write(sender, b"\0")

    poll = select.poll()
    poll.register(receiver, select.POLLIN)
    deadline = None if seconds is None else time.monotonic() + seconds
    wakers.append(wake)
    try:
        with _woken_by_signals(sender):
            while not is_wished():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                came = poll.poll(None if left is None else left * 1000)
                if not came and left is not None:
                    break
                _drain(receiver)  # perhaps only another signal's byte
    finally:
        wakers.remove(wake)
        _idle_pipes.append((receiver, sender))
    return is_wished()


def _take_pipe() -> tuple[int, int]:
    with suppress(IndexError):
        receiver, sender = _idle_pipes.pop()
        _drain(receiver)
        return receiver, sender
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


def _drain(receiver: int) -> None:
    with suppress(BlockingIOError):
        os.read(receiver, 4096)
