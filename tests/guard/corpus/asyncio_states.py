"""asyncio: loops that are finished, created, running, or somewhere else."""
# ruff: noqa: PLC0415 - a state imports what it is about, where it is about it

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from guard.corpus.registry import ForkPoint, state

if TYPE_CHECKING:
    import asyncio


@state("harmless", quick=True)
def asyncio_imported(fork: ForkPoint) -> None:
    """An import is no runtime."""
    import asyncio

    if fork():
        asyncio.run(asyncio.sleep(0.01))


@state("harmless", quick=True)
def asyncio_finished(fork: ForkPoint) -> None:
    """A finished asyncio.run() leaves nothing behind."""
    import asyncio

    asyncio.run(asyncio.sleep(0.01))
    if fork():
        asyncio.run(asyncio.sleep(0.01))


@state("harmless", quick=True)
def asyncio_finished_with_threads(fork: ForkPoint) -> None:
    """asyncio.run() ends its own pool; its threads may still be counted for a moment."""
    import asyncio

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(len, "") for _ in range(8)))

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("harmless")
def asyncio_finished_with_resolver(fork: ForkPoint) -> None:
    """A name looked up in the loop's pool."""
    import asyncio

    async def main() -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("harmless")
def asyncio_finished_with_subprocess(fork: ForkPoint) -> None:
    """A subprocess that was waited for; on 3.11 by a thread of its own."""
    import asyncio

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "")
        assert await process.wait() == 0

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("harmless")
def asyncio_finished_with_signal_handler(fork: ForkPoint) -> None:
    """Closing the loop takes its handlers and its wakeup descriptor away."""
    import asyncio

    async def main() -> None:
        seen = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, seen.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await seen.wait()

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("harmless")
def asyncio_finished_server(fork: ForkPoint) -> None:
    """A server that was closed with its loop."""
    import asyncio

    async def main() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        async with server:
            await server.start_serving()

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("harmless", quick=True)
def asyncio_closed_by_hand(fork: ForkPoint) -> None:
    """run_until_complete() and close(), with a pool thread and a watched descriptor."""
    import asyncio

    loop = asyncio.new_event_loop()
    receive, send = os.pipe()
    loop.add_reader(receive, int)
    loop.run_until_complete(loop.run_in_executor(None, len, ""))
    loop.close()
    os.close(send)
    if fork():
        asyncio.run(asyncio.sleep(0.01))


@state("harmless")
def asyncio_set_and_closed(fork: ForkPoint) -> None:
    """A closed loop that is still the current one."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()
    if fork():
        asyncio.run(asyncio.sleep(0.01))


@state("harmless")
def asyncio_queues_without_a_loop(fork: ForkPoint) -> None:
    """Locks and queues made before any loop bind themselves to the one that first waits."""
    import asyncio

    box, lock = asyncio.Queue[int](), asyncio.Lock()

    async def main() -> None:
        async with lock:
            box.put_nowait(1)
            assert await box.get() == 1

    if fork():
        asyncio.run(main())


@state("hang", quick=True)
def runner_around_a_daemon(fork: ForkPoint) -> None:
    """`with asyncio.Runner()`: the launcher's exit empties the epoll that its daemon waits on."""
    import asyncio

    with asyncio.Runner() as runner:
        runner.get_loop()
        if not fork():
            return
        fork.wait_for_parent()
        runner.run(_sleep_in_thread())


@state("hang")
def loop_in_a_variable(fork: ForkPoint) -> None:
    """The loop is closed when the launcher's frame goes; the daemon's epoll is the same one."""
    import asyncio

    loop = asyncio.new_event_loop()
    if not fork():
        loop.close()
        return
    fork.wait_for_parent()
    loop.run_until_complete(_sleep_in_thread())


@state("hang", quick=True)
def current_loop(fork: ForkPoint) -> None:
    """The loop is set as the current one, and closed by the launcher's clean-up."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    if not fork():
        loop.close()
        return
    fork.wait_for_parent()
    loop.run_until_complete(_sleep_in_thread())


@state("hang")
def used_loop_not_closed(fork: ForkPoint) -> None:
    """A loop that ran once and was kept; the launcher closes it."""
    import asyncio

    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    if not fork():
        loop.close()
        return
    fork.wait_for_parent()
    loop.run_until_complete(_sleep_in_thread())


@state("hang", "wrong", quick=True)
def running_loop_carried_on(fork: ForkPoint) -> None:
    """A child forked inside a coroutine waits for a thread's answer, and the parent's loop ends."""
    import asyncio

    async def main() -> None:
        if fork():
            await _sleep_in_thread()

    asyncio.run(main())


@state("hang", "wrong", quick=True)
def running_loop_left_politely(fork: ForkPoint) -> None:
    """A child forked by a server calls sys.exit(): the *parent's* server goes deaf."""
    import asyncio

    async def main() -> None:
        server = await asyncio.start_server(_hang_up, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server:
            await server.start_serving()
            if fork():
                sys.exit(0)
            # The child is gone when its end of this pipe is; only then is the server asked.
            reader = await asyncio.to_thread(_connect, host, port)
            assert reader == b""

    asyncio.run(main())


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def _connect(host: str, port: int) -> bytes:
    import socket

    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    with socket.create_connection((host, port)) as connection:
        return connection.recv(1)


@state("hang", quick=True)
def loop_in_another_thread(fork: ForkPoint) -> None:
    """Work handed to a loop that another thread runs is never done in the child."""
    import asyncio
    import threading

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
    if fork():
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()


@state("hang")
def executor_outlives_the_loop(fork: ForkPoint) -> None:
    """A pool of the person's own is not ended by asyncio.run()."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)

    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(executor, len, "")

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("hang", "wrong")
def running_loop_waits_for_subprocess(fork: ForkPoint) -> None:
    """A child waits for a process that is its parent's."""
    import asyncio

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "0.1")
        fork()
        assert await process.wait() == 0

    asyncio.run(main())


@state("hang", "wrong")
def fork_in_to_thread(fork: ForkPoint) -> None:
    """`await asyncio.to_thread(os.fork)`: the child has a pool thread for its only one."""
    import asyncio

    asyncio.run(asyncio.to_thread(fork))
    assert not fork.is_child, "a child came out of a loop that it does not have"


@state("harmless")
def debug_mode_finished(fork: ForkPoint) -> None:
    """The debug mode of asyncio, finished."""
    import asyncio

    asyncio.run(asyncio.sleep(0.01), debug=True)
    if fork():
        asyncio.run(asyncio.sleep(0.01), debug=True)


async def _sleep_in_thread() -> None:
    """Wait for another thread's answer, which must wake the loop through its self-pipe."""
    import asyncio

    # Long enough for the loop to be waiting when the answer comes: only then it must be woken.
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.1)
