"""States in which a fork is safe, and which a guard could take for something else."""
# ruff: noqa: PLC0415 - a state imports what it is about, where it is about it

from __future__ import annotations

import os
import sys
import time

from guard.corpus.registry import ForkPoint, state


@state("harmless", quick=True)
def bare(fork: ForkPoint) -> None:
    """A fresh interpreter; the child runs an asyncio program."""
    if fork():
        import asyncio

        asyncio.run(asyncio.sleep(0.01))


@state("harmless")
def forked_before(fork: ForkPoint) -> None:
    """Many forks one after the other, as a template makes them."""
    for _ in range(5):
        if fork():
            import asyncio

            asyncio.run(asyncio.sleep(0))
            return


@state("harmless", quick=True)
def grandchild(fork: ForkPoint) -> None:
    """A child that forks again, as a daemon does."""
    if fork():
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@state("harmless")
def many_standard_modules(fork: ForkPoint) -> None:
    """What a large program imports from the standard library starts nothing by that."""
    import concurrent.futures
    import http.client
    import importlib.metadata
    import logging.handlers
    import multiprocessing.pool
    import multiprocessing.resource_tracker
    import sqlite3
    import ssl
    import subprocess
    import tempfile
    import urllib.request
    import xml.sax

    assert concurrent.futures
    assert http.client
    assert importlib.metadata
    assert logging.handlers
    assert multiprocessing.pool
    assert multiprocessing.resource_tracker
    assert sqlite3
    assert subprocess
    assert tempfile
    assert urllib.request
    assert xml.sax
    if fork():
        assert ssl.create_default_context() is not None


@state("harmless", quick=True)
def big_heap(fork: ForkPoint) -> None:
    """Two million objects: the guard must not walk them."""
    objects = [[i] for i in range(2_000_000)]
    if fork():
        assert len(objects) == 2_000_000


@state("harmless")
def frozen_heap(fork: ForkPoint) -> None:
    """gc.freeze() before the fork, as for shared memory."""
    import gc

    gc.freeze()
    if fork():
        gc.collect()


@state("harmless")
def logging_configured(fork: ForkPoint) -> None:
    """Logging to a file: its locks are made anew in a child."""
    import logging
    import tempfile

    logging.basicConfig(filename=tempfile.mkdtemp() + "/log")
    logging.getLogger("before").warning("in the parent")
    if fork():
        logging.getLogger("after").warning("in the child")


@state("harmless")
def syslog_open(fork: ForkPoint) -> None:
    """A datagram socket that is connected to the system's log is shared without harm."""
    import socket

    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if fork():
        left.send(b"child")
        assert right.recv(10) == b"child"


@state("harmless", quick=True)
def finished_subprocess(fork: ForkPoint) -> None:
    """subprocess.run() leaves nothing behind."""
    import subprocess

    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    if fork():
        subprocess.run([sys.executable, "-S", "-c", ""], check=True)


@state("harmless")
def running_subprocess(fork: ForkPoint) -> None:
    """A process started by subprocess belongs to the parent; the child just has no part in it."""
    import subprocess

    with subprocess.Popen(["sleep", "30"]) as other:
        if fork():
            subprocess.run(["true"], check=True)
            os._exit(0)
        other.kill()


@state("harmless", quick=True)
def joined_thread(fork: ForkPoint) -> None:
    """A thread that was joined a moment ago; the kernel may still count it."""
    import threading

    thread = threading.Thread(target=len, args=("",))
    thread.start()
    thread.join()
    if fork():
        again = threading.Thread(target=len, args=("",))
        again.start()
        again.join()


@state("harmless", quick=True)
def many_joined_threads(fork: ForkPoint) -> None:
    """Forty threads joined a moment ago."""
    import threading

    threads = [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if fork():
        return


@state("harmless", quick=True)
def executor_shut_down(fork: ForkPoint) -> None:
    """A thread pool used in a `with`; a new one in the child."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
    if fork():
        with ThreadPoolExecutor(4) as executor:
            assert list(executor.map(abs, [-1, -2])) == [1, 2]


@state("harmless")
def executor_unused(fork: ForkPoint) -> None:
    """A thread pool without a task has no thread yet, and works in the child."""
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(4)
    if fork():
        assert executor.submit(abs, -1).result() == 1


@state("harmless")
def timer_cancelled(fork: ForkPoint) -> None:
    """A threading.Timer that was cancelled and joined."""
    import threading

    timer = threading.Timer(60, print)
    timer.start()
    timer.cancel()
    timer.join()
    if fork():
        again = threading.Timer(0.01, int)
        again.start()
        again.join()


@state("harmless")
def queue_listener_stopped(fork: ForkPoint) -> None:
    """A logging listener that was stopped before the fork."""
    import logging.handlers
    import queue

    listener = logging.handlers.QueueListener(queue.SimpleQueue())
    listener.start()
    listener.stop()
    if fork():
        listener.start()
        listener.stop()


@state("harmless", quick=True)
def unheld_locks(fork: ForkPoint) -> None:
    """Locks, queues and conditions that nobody holds or waits for."""
    import queue
    import threading

    lock, condition, box = threading.Lock(), threading.Condition(), queue.Queue[int]()
    if fork():
        with lock, condition:
            box.put(1)
        assert box.get(timeout=5) == 1


@state("harmless")
def faulthandler_enabled(fork: ForkPoint) -> None:
    """faulthandler.enable() only sets signal handlers."""
    import faulthandler

    faulthandler.enable()
    if fork():
        sys.exit(0)


@state("harmless", quick=True)
def faulthandler_watchdog_cancelled(fork: ForkPoint) -> None:
    """The watchdog's thread is gone after the cancelling."""
    import faulthandler

    faulthandler.dump_traceback_later(600)
    faulthandler.cancel_dump_traceback_later()
    if fork():
        sys.exit(0)


@state("harmless")
def tracemalloc_started(fork: ForkPoint) -> None:
    """Tracing memory needs no thread."""
    import tracemalloc

    tracemalloc.start()
    if fork():
        assert tracemalloc.take_snapshot().traces


@state("harmless")
def profiler_and_tracer(fork: ForkPoint) -> None:
    """A profile and a trace function go on in the child."""

    def notice(*_: object) -> None:
        return None

    sys.setprofile(notice)
    sys.settrace(notice)
    if fork():
        assert sys.gettrace() is notice


@state("harmless")
def signal_handlers(fork: ForkPoint) -> None:
    """Python signal handlers are inherited, and answer for the child alone."""
    import signal

    seen: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    if fork():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]


@state("harmless")
def interval_timer(fork: ForkPoint) -> None:
    """A timer of the parent does not fire in the child."""
    import signal

    signal.signal(signal.SIGALRM, lambda *_: os._exit(3))
    signal.setitimer(signal.ITIMER_REAL, 60)
    if fork():
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@state("harmless")
def context_and_thread_local_values(fork: ForkPoint) -> None:
    """Context variables and thread-local values are copied like any memory."""
    import contextvars
    import threading

    variable, local = contextvars.ContextVar[int]("variable"), threading.local()
    variable.set(1)
    local.value = 2
    if fork():
        assert (variable.get(), local.value) == (1, 2)


@state("harmless")
def module_level_random(fork: ForkPoint) -> None:
    """The generator of the random module is seeded anew in each child."""
    import random

    random.seed(1)
    before = random.Random(1).random()  # noqa: S311 - no secret
    if fork():
        assert random.random() != before  # noqa: S311 - no secret


@state("harmless")
def shared_library_loaded(fork: ForkPoint) -> None:
    """A C library loaded by ctypes."""
    import ctypes

    libc = ctypes.CDLL(None)
    if fork():
        assert libc.getpid() == os.getpid()


@state("harmless")
def name_looked_up(fork: ForkPoint) -> None:
    """The resolver used once, in this thread, to the end."""
    import socket

    socket.getaddrinfo("localhost", 80)
    if fork():
        socket.getaddrinfo("localhost", 80)


@state("harmless")
def time_zone_used(fork: ForkPoint) -> None:
    """The C library's time zone lock was used and given back."""
    time.localtime()
    time.strftime("%Z")
    if fork():
        time.localtime()


@state("harmless", quick=True)
def tls_context(fork: ForkPoint) -> None:
    """An SSL context without a connection; OpenSSL reseeds its generator in the child."""
    import ssl

    ssl.create_default_context()
    before = ssl.RAND_bytes(8)
    if fork():
        assert ssl.RAND_bytes(8) != before
