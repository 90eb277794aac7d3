"""What one process's end does to the other: most of it nobody can see from inside."""
# ruff: noqa: PLC0415 - a state imports what it is about, where it is about it

from __future__ import annotations

import os
import sys

from guard.corpus.registry import ForkPoint, state


@state("wrong", unseen=True)
def unflushed_output(fork: ForkPoint) -> None:
    """What is in a buffer at the fork is written by both."""
    receive, send = os.pipe()
    writer = os.fdopen(send, "w")
    writer.write("once")
    if fork():
        sys.exit(0)
    fork.wait_for_child()
    writer.close()
    assert os.read(receive, 100) == b"once"


@state("wrong", unseen=True)
def temporary_directory(fork: ForkPoint) -> None:
    """The child's exit deletes the parent's temporary directory."""
    import tempfile

    folder = tempfile.TemporaryDirectory()
    if fork():
        sys.exit(0)
    fork.wait_for_child()
    assert os.access(folder.name, os.F_OK)


@state("wrong", unseen=True)
def exit_handler(fork: ForkPoint) -> None:
    """A clean-up at exit runs in both."""
    import atexit

    receive, send = os.pipe()
    atexit.register(os.write, send, b"x")
    if fork():
        sys.exit(0)
    fork.wait_for_child()
    os.write(send, b"|")
    assert os.read(receive, 10) == b"|"


@state("wrong", unseen=True)
def generator_of_its_own(fork: ForkPoint) -> None:
    """A random.Random of the program's own gives every child the same numbers."""
    import random

    receive, send = os.pipe()
    generator = random.Random(7)  # noqa: S311 - that it is no secret is the point
    if fork():
        os.write(send, str(generator.random()).encode())
        os._exit(0)
    assert os.read(receive, 100).decode() != str(generator.random())


@state("wrong", unseen=True)
def wakeup_descriptor(fork: ForkPoint) -> None:
    """A wakeup descriptor set by hand: a signal to the child wakes the parent."""
    import signal
    import socket

    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)  # noqa: FBT003 - its signature
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.set_wakeup_fd(theirs.fileno())
    if fork():
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(0)
    fork.wait_for_child()
    try:
        woken = ours.recv(1)
    except BlockingIOError:
        woken = b""
    assert woken == b"", "the parent was woken by its child's signal"


@state("harmless", quick=True)
def temporary_directory_gone(fork: ForkPoint) -> None:
    """A temporary directory that was cleaned up before."""
    import tempfile

    with tempfile.TemporaryDirectory():
        pass
    if fork():
        sys.exit(0)


@state("harmless")
def flushed_output(fork: ForkPoint) -> None:
    """What was flushed before the fork is written once."""
    receive, send = os.pipe()
    writer = os.fdopen(send, "w")
    writer.write("once")
    writer.flush()
    if fork():
        sys.exit(0)
    fork.wait_for_child()
    writer.close()
    assert os.read(receive, 100) == b"once"


@state("wrong", unseen=True)
def weak_finalizer(fork: ForkPoint) -> None:
    """A weakref.finalize runs in both."""
    import weakref

    class Thing:
        pass

    receive, send = os.pipe()
    thing = Thing()
    weakref.finalize(thing, os.write, send, b"x")
    if fork():
        sys.exit(0)
    fork.wait_for_child()
    os.write(send, b"|")
    assert os.read(receive, 10) == b"|"


@state("harmless", quick=True, lucky=True)
def thread_that_nobody_needs(fork: ForkPoint) -> None:
    """A thread that holds nothing and owes nothing, which no guard can know of a thread."""
    import threading
    import time

    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    if fork():
        os._exit(0)


@state("harmless", lucky=True)
def fresh_loop_inside_a_loop(fork: ForkPoint) -> None:
    """A child of a coroutine that runs a loop of its own, and never returns to its parent's."""
    import asyncio

    async def main() -> None:
        if fork():
            asyncio.run(asyncio.sleep(0.01))
            os._exit(0)

    asyncio.run(main())


@state("harmless", lucky=True)
def record_lock_that_nobody_needs(fork: ForkPoint) -> None:
    """A lock on a file that the child does not use."""
    import fcntl
    import tempfile

    with tempfile.TemporaryFile() as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        if fork():
            os._exit(0)
        fork.wait_for_child()
