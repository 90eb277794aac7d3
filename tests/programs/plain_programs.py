"""Programs that are plain functions, some with a loop of their own."""

from __future__ import annotations

import asyncio
import builtins
import threading
import time
from typing import Any

tell: Any = getattr(builtins, "tell")  # noqa: B009 - given by the driver


def block() -> None:
    """Block for ever, in steps: a signal that just precedes a call that blocks is noticed after it.

    (No Python program can do better in its main thread; `wait_stopping_blocking` can.)
    """
    while True:
        time.sleep(0.05)


def sleeps() -> None:
    try:
        tell("asleep")
        block()
    finally:
        tell("cleaned up")


def computes() -> None:
    tell("computing")
    while True:
        pass


def joins_a_thread(context: Any) -> None:
    """A lock's wait, which a signal's exception ends as well."""
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    context.ready()
    while True:
        thread.join(0.05)


def tell_when_it_waits(context: Any) -> None:
    """Be ready from another thread: the signal must not come before the wait."""

    def look() -> None:
        while not context.is_cooperative:
            pass
        context.ready()

    threading.Thread(target=look).start()


def waits(context: Any) -> None:
    tell_when_it_waits(context)
    tell("woken", answer=context.wait_stopping_blocking())


def waits_a_moment(context: Any) -> None:
    tell("woken", answer=context.wait_stopping_blocking(0.01))
    context.ready()
    tell("woken again", answer=context.wait_stopping_blocking(3600))


def waits_and_does_not_end(context: Any) -> None:
    tell_when_it_waits(context)
    context.wait_stopping_blocking()
    tell("told")
    try:
        block()
    finally:
        tell("cleaned up")


def holds_on() -> None:
    """A clean-up without end."""
    try:
        tell("asleep")
        block()
    finally:
        tell("cleaning up")
        block()


def returns_a_coroutine() -> Any:
    return rest()


def fails() -> None:
    message = "no such luck"
    raise LookupError(message)


def fails_before_ready(context: Any) -> None:  # noqa: ARG001 - so that it is not ready
    fails()


def returns_a_number() -> int:
    return 7


async def rest() -> None:
    tell("resting")
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        tell("cleaned up")


def has_asyncio() -> None:
    asyncio.run(rest())


def has_uvloop() -> None:
    import uvloop  # noqa: PLC0415 - only here

    uvloop.run(rest())


def has_trio() -> None:
    import trio  # noqa: PLC0415 - only here

    async def trio_rest() -> None:
        tell("resting")
        try:
            await trio.sleep_forever()
        finally:
            tell("cleaned up")

    trio.run(trio_rest)


async def waits_in_a_loop(context: Any) -> None:
    context.ready()
    await context.wait_stopping()
    tell("woken")


def waits_in_asyncio(context: Any) -> None:
    asyncio.run(waits_in_a_loop(context))


def waits_in_trio(context: Any) -> None:
    import trio  # noqa: PLC0415 - only here

    trio.run(waits_in_a_loop, context)


def waits_in_anyio(context: Any) -> None:
    import anyio  # noqa: PLC0415 - only here

    anyio.run(waits_in_a_loop, context)


def waits_in_another_threads_loop(context: Any) -> None:
    thread = threading.Thread(target=asyncio.run, args=(waits_in_a_loop(context),))
    thread.start()
    context.wait_stopping_blocking()
    thread.join()
