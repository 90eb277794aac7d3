"""Other runtimes: uvloop, trio, anyio, Twisted, gevent."""
# ruff: noqa: PLC0415 - a state imports what it is about, where it is about it

from __future__ import annotations

import os
import time

from guard.corpus.registry import ForkPoint, load, state


@state("harmless", needs="uvloop", quick=True)
def uvloop_imported(fork: ForkPoint) -> None:
    """An import is no runtime."""
    import asyncio

    import uvloop

    if fork():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.sleep(0.01))


@state("harmless", needs="uvloop", quick=True)
def uvloop_finished(fork: ForkPoint) -> None:
    """A uvloop that ran and was closed."""
    import asyncio

    import uvloop

    for _ in range(2):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.to_thread(len, ""))
        if not fork.is_child and not fork():
            return


@state("harmless", needs="uvloop")
def uvloop_created(fork: ForkPoint) -> None:
    """A uvloop that never ran has registered nothing with its epoll."""
    import asyncio

    import uvloop

    loop = uvloop.new_event_loop()
    if not fork():
        loop.close()
        return
    fork.wait_for_parent()
    loop.run_until_complete(asyncio.sleep(0.01))


@state("hang", "wrong", "crash", needs="uvloop", quick=True)
def uvloop_used_not_closed(fork: ForkPoint) -> None:
    """A uvloop that ran before the fork and runs on in both: the parent takes wake-ups."""
    import asyncio

    import uvloop

    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    if fork():
        loop.run_until_complete(_sleep_in_threads(100))
    else:
        loop.run_until_complete(asyncio.sleep(1))


@state("hang", "wrong", "crash", needs="uvloop", quick=True)
def uvloop_running(fork: ForkPoint) -> None:
    """A fork inside a coroutine: the child waits for an event that its parent took."""
    import asyncio

    import uvloop

    async def main() -> None:
        if fork():
            await _sleep_in_threads(100)
        else:
            await asyncio.sleep(1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _sleep_in_threads(rounds: int) -> None:
    import asyncio

    for _ in range(rounds):
        # Long enough for the loop to be waiting when the answer comes.
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.002)


@state("harmless", needs="trio", quick=True)
def trio_imported(fork: ForkPoint) -> None:
    """An import is no runtime."""
    import trio

    if fork():
        trio.run(trio.sleep, 0.01)


@state("harmless", needs="trio", quick=True)
def trio_finished(fork: ForkPoint) -> None:
    """A finished trio.run()."""
    import trio

    trio.run(trio.sleep, 0.01)
    if fork():
        trio.run(trio.sleep, 0.01)


@state("harmless", needs="trio", quick=True)
def trio_idle_worker(fork: ForkPoint) -> None:
    """Trio keeps an idle thread for ten seconds, and forgets it in a child."""
    import trio

    async def main() -> None:
        await trio.to_thread.run_sync(len, "")

    trio.run(main)
    if fork():
        trio.run(main)


@state("wrong", "hang", needs="trio", quick=True)
def trio_running(fork: ForkPoint) -> None:
    """A fork inside trio.run(): another trio.run() is refused, this one is shared."""
    import trio

    async def main() -> None:
        if fork():
            trio.run(trio.sleep, 0.01)

    trio.run(main)


@state("hang", "wrong", needs="trio")
def trio_running_waits_for_thread(fork: ForkPoint) -> None:
    """A fork inside trio.run(), while both sides wait for threads."""
    import trio

    async def main() -> None:
        fork()
        for _ in range(3000):
            await trio.to_thread.run_sync(len, "")

    trio.run(main)


@state("harmless", needs="anyio")
def anyio_finished_on_asyncio(fork: ForkPoint) -> None:
    """A finished anyio.run() on asyncio, with a worker thread."""
    _run_anyio("asyncio")
    if fork():
        _run_anyio("asyncio")


@state("harmless", needs="anyio trio")
def anyio_finished_on_trio(fork: ForkPoint) -> None:
    """A finished anyio.run() on trio, with a worker thread."""
    _run_anyio("trio")
    if fork():
        _run_anyio("trio")


def _run_anyio(backend: str) -> None:
    import anyio
    import anyio.to_thread

    async def main() -> None:
        await anyio.to_thread.run_sync(len, "")

    anyio.run(main, backend=backend)


@state("hang", "wrong", needs="anyio")
def anyio_running(fork: ForkPoint) -> None:
    """A fork inside anyio.run()."""
    import anyio
    import anyio.to_thread

    async def main() -> None:
        if fork():
            await anyio.to_thread.run_sync(len, "")

    anyio.run(main)


@state("harmless", needs="twisted")
def twisted_imported(fork: ForkPoint) -> None:
    """Twisted without its reactor."""
    defer = load("twisted.internet.defer")

    if fork():
        assert defer.succeed(1).result == 1


@state("hang", needs="twisted")
def twisted_reactor_imported(fork: ForkPoint) -> None:
    """Importing the reactor makes an epoll; the launcher empties it on its way out."""
    reactor = load("twisted.internet.reactor")

    if not fork():
        reactor._poller.unregister(reactor.waker.fileno())  # noqa: SLF001 - its clean-up
        return
    fork.wait_for_parent()
    reactor.callInThread(reactor.callFromThread, reactor.stop)
    reactor.run()


@state("hang", "wrong", needs="twisted")
def twisted_running(fork: ForkPoint) -> None:
    """A fork inside the reactor."""
    reactor = load("twisted.internet.reactor")

    def split() -> None:
        fork()
        loop(2000)

    def loop(left: int) -> None:
        if left == 0:
            reactor.stop()
        else:
            reactor.callInThread(reactor.callFromThread, loop, left - 1)

    reactor.callWhenRunning(split)
    reactor.run()


@state("harmless", needs="gevent")
def gevent_used(fork: ForkPoint) -> None:
    """Gevent makes itself a new hub in a child."""
    gevent = load("gevent")

    gevent.sleep(0.001)
    if fork():
        gevent.sleep(0.001)
        assert gevent.spawn(len, "").get() == 0


@state("harmless", needs="gevent")
def gevent_monkey_patched(fork: ForkPoint) -> None:
    """Gevent with the standard library patched."""
    load("gevent.monkey").patch_all()
    import threading
    import time

    time.sleep(0.001)
    if fork():
        thread = threading.Thread(target=time.sleep, args=(0.001,))
        thread.start()
        thread.join()


@state("harmless", needs="gevent")
def gevent_imported(fork: ForkPoint) -> None:
    """An import is no runtime."""
    gevent = load("gevent")

    if fork():
        gevent.sleep(0.001)


@state("hang", "wrong", needs="trio")
def trio_guest_mode(fork: ForkPoint) -> None:
    """Trio as a guest of asyncio: its waiting is done by a thread that the child has not."""
    import asyncio

    import trio

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        async def guest() -> None:
            await trio.sleep(0.05)
            fork()
            await trio.sleep(0.05)

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        await done

    asyncio.run(main())
    if fork.is_child:
        os._exit(0)
