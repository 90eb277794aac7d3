"""Programs that take SIGTERM into their own hands, as servers do that run without forkfirst too."""

from __future__ import annotations

import asyncio
import builtins
import signal
from typing import Any

tell: Any = getattr(builtins, "tell")  # noqa: B009 - given by the driver


async def through_the_loop(context: Any) -> None:
    """As hypercorn and aiohttp do."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    await serve(context, asked)
    tell("removed", first=loop.remove_signal_handler(signal.SIGTERM))
    tell("removed", again=loop.remove_signal_handler(signal.SIGTERM))


async def behind_its_back(context: Any) -> None:
    """As uvicorn does."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(asked.set))
    await serve(context, asked)


async def serve(context: Any, asked: asyncio.Event) -> None:
    context.ready()
    try:
        await asked.wait()
        tell("drained", stopping=context.stopping)
    except asyncio.CancelledError:
        tell("cancelled")
        raise


async def without_end(context: Any) -> None:
    """A server that waits for a request that never ends."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, tell, "own handler")
    context.ready()
    try:
        await asyncio.Event().wait()
    finally:
        tell("cleaned up")


async def another_signal(context: Any) -> None:
    """Only the stop signals are the service's."""
    hung_up = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    context.ready()
    await hung_up.wait()
    tell("reloaded", removed=loop.remove_signal_handler(signal.SIGHUP))
    await asyncio.Event().wait()
