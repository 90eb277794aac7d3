"""Programs whose life the tests of the runtimes follow, on whichever library LIBRARY names."""

from __future__ import annotations

import builtins
import gc
import importlib
import itertools
import os
import sys
import threading
import time
from typing import Any

library: Any = importlib.import_module(os.environ.get("LIBRARY", "asyncio"))
tell: Any = getattr(builtins, "tell")  # noqa: B009 - given by the driver


def read_line() -> str:
    """Block until the test writes a line."""
    return sys.stdin.readline().strip()


async def pause() -> None:
    await library.sleep(0)


async def rest() -> None:
    """Wait for ever."""
    while True:
        await library.sleep(3600)


def make_event() -> Any:
    return library.Event()


# -- ready ---------------------------------------------------------------------------------------


async def ignorant() -> None:
    tell("first step")
    try:
        await rest()
    finally:
        tell("cleaned up")


async def says_ready(context: Any) -> None:
    await pause()
    await pause()
    tell("before")
    context.ready("serving")
    context.ready("again")
    context.ready()
    tell("after")
    await rest()


async def returns_at_once() -> None:
    tell("ran")


async def returns_before_ready(context: Any) -> None:
    await pause()
    tell("ran", name=context.name)


async def returns_a_number() -> int:
    return 7


# -- stop ----------------------------------------------------------------------------------------


async def cooperative(context: Any) -> None:
    context.ready()
    try:
        await context.wait_stopping()
        tell("told", stopping=context.stopping)
        await context.wait_stopping()  # true from now on
        await pause()
        tell("drained")
    except BaseException:
        tell("cancelled")
        raise


async def cooperative_without_end(context: Any) -> None:
    context.ready()
    try:
        await context.wait_stopping()
        tell("told")
        await rest()
    finally:
        tell("cleaned up")


async def cleans_up_without_end() -> None:
    try:
        await rest()
    finally:
        tell("cleaning up")
        while True:
            try:
                await rest()
            except BaseException as error:
                if not is_cancellation(error):
                    raise


async def stuck_in_python() -> None:
    await pause()
    tell("stuck")
    while True:
        pass


async def stuck_in_python_when_told(context: Any) -> None:
    context.ready()
    await context.wait_stopping()
    tell("stuck")
    while True:
        pass


async def stuck_in_c_when_told(context: Any) -> None:
    context.ready()
    await context.wait_stopping()
    tell("stuck")
    sum(itertools.repeat(0))  # holds the GIL for ever


async def fails_in_clean_up() -> None:
    try:
        await rest()
    finally:
        message = "the clean-up went wrong"
        raise RuntimeError(message)


def is_cancellation(error: BaseException) -> bool:
    return type(error).__name__ in {"CancelledError", "Cancelled"}


# -- end -----------------------------------------------------------------------------------------


async def exits(context: Any) -> None:  # noqa: ARG001 - so that it is not ready
    await pause()
    sys.exit(3)


async def exits_with_a_text(context: Any) -> None:  # noqa: ARG001
    await pause()
    sys.exit("no configuration")


async def exits_when_told(context: Any) -> None:
    context.ready()
    await context.wait_stopping()
    sys.exit(4)


async def fails_before_ready(context: Any) -> None:  # noqa: ARG001
    await pause()
    await fail()


async def fails_when_ready(context: Any) -> None:
    context.ready()
    await pause()
    await fail()


async def fail() -> None:
    message = "no such luck"
    raise LookupError(message)


async def fails_in_one_task(context: Any) -> None:
    context.ready()
    await run_together(fail, rest)


async def fails_in_two_tasks(context: Any) -> None:
    context.ready()
    await run_together(fail, fail)


async def exits_in_a_task(context: Any) -> None:
    context.ready()

    async def leave() -> None:
        sys.exit(5)

    await run_together(leave, rest)


async def run_together(*functions: Any) -> None:
    name = library.__name__
    if name == "asyncio":
        async with library.TaskGroup() as group:
            for function in functions:
                group.create_task(function())
    elif name == "trio":
        async with library.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)
    else:
        async with library.create_task_group() as group:
            for function in functions:
                group.start_soon(function)


# -- look ----------------------------------------------------------------------------------------


async def stuck_then_free(context: Any) -> None:
    """Block the loop until the test has heard how a thread sees it, then rest."""
    context.ready()
    seen_stuck = threading.Event()
    free = threading.Event()

    def look() -> None:
        while context.pulse.stuck_seconds(time.monotonic()) < 0.1:
            pass
        tell("stuck")
        seen_stuck.set()
        free.wait()
        while context.pulse.stuck_seconds(time.monotonic()):
            pass
        tell("turning")

    threading.Thread(target=look).start()
    seen_stuck.wait()
    free.set()
    await rest()


async def outer(context: Any) -> None:
    await pause()
    context.ready()
    threading.Thread(target=tell_tasks, args=(context,)).start()
    await inner()


async def inner() -> None:
    await rest()


def tell_tasks(context: Any) -> None:
    while "inner" not in (text := context.describe_tasks()):
        pass
    tell("tasks", text=text)


# -- wait from elsewhere -------------------------------------------------------------------------


async def waits_in_a_thread(context: Any) -> None:
    def wait() -> None:
        tell("waiting")
        tell("woken", answer=context.wait_stopping_blocking())

    context.ready()
    if library.__name__ == "asyncio":
        await library.to_thread(wait)
    elif library.__name__ == "trio":
        await library.to_thread.run_sync(wait)
    else:
        anyio_thread = importlib.import_module("anyio.to_thread")
        await anyio_thread.run_sync(wait)


async def leaves_while_a_task_waits(context: Any) -> None:
    """A helper that waits for the stop must not keep a program that has ended."""
    context.ready()

    async def help_out() -> None:
        await context.wait_stopping()
        tell("helper woken")

    helper = None
    if library.__name__ == "asyncio":
        helper = library.create_task(help_out())
    await pause()
    await pause()
    del helper
    gc.collect()
