"""Threads: what they hold, what they owe, and who started them."""
# ruff: noqa: PLC0415 - a state imports what it is about, where it is about it

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.corpus.registry import ForkPoint, state

if TYPE_CHECKING:
    from collections.abc import Callable


def hold(lock: Any) -> None:
    """Have another thread take *lock* and keep it."""
    held = threading.Event()

    def keep() -> None:
        with lock:
            held.set()
            time.sleep(3600)

    threading.Thread(target=keep, daemon=True, name="keeper").start()
    held.wait()


def start_quietly(target: Callable[[], object]) -> None:
    """Start a daemon thread and return when it is running."""
    running = threading.Event()

    def run() -> None:
        running.set()
        target()

    threading.Thread(target=run, daemon=True, name="quiet").start()
    running.wait()


@state("hang", quick=True)
def lock_held(fork: ForkPoint) -> None:
    """A lock that another thread holds is never released in the child."""
    lock = threading.Lock()
    hold(lock)
    if fork():
        with lock:
            pass


@state("hang")
def reentrant_lock_held(fork: ForkPoint) -> None:
    """A reentrant lock that another thread holds."""
    lock = threading.RLock()
    hold(lock)
    if fork():
        with lock:
            pass


@state("hang")
def condition_held(fork: ForkPoint) -> None:
    """A condition whose lock another thread holds."""
    condition = threading.Condition()
    hold(condition)
    if fork():
        with condition:
            pass


@state("hang")
def semaphore_taken(fork: ForkPoint) -> None:
    """The last permit of a semaphore is another thread's."""
    semaphore = threading.Semaphore(1)
    hold(semaphore)
    if fork():
        with semaphore:
            pass


@state("hang", quick=True)
def queue_worker(fork: ForkPoint) -> None:
    """A thread that works off a queue: in the child nobody reads it."""
    import queue

    box = queue.Queue[int]()

    def work() -> None:
        while True:
            box.get()
            box.task_done()

    start_quietly(work)
    box.put(1)
    box.join()
    if fork():
        box.put(2)
        box.join()


@state("hang")
def event_promised(fork: ForkPoint) -> None:
    """An event that another thread will set."""
    event, start = threading.Event(), threading.Event()

    def promise() -> None:
        start.wait()
        event.set()

    start_quietly(promise)
    if fork():
        start.set()
        event.wait()


@state("hang")
def barrier_waited_for(fork: ForkPoint) -> None:
    """A barrier at which another thread already waits: that part of it stays behind."""
    barrier = threading.Barrier(2)
    start_quietly(barrier.wait)
    while barrier.n_waiting == 0:
        os.sched_yield()
    if fork():
        again = threading.Thread(target=barrier.wait, daemon=True)
        again.start()
        again.join()
        barrier.wait()


@state("hang")
def thread_to_join(fork: ForkPoint) -> None:
    """A result that another thread owes."""
    from concurrent.futures import Future

    future, start = Future[int](), threading.Event()

    def work() -> None:
        start.wait()
        future.set_result(1)

    start_quietly(work)
    if fork():
        start.set()
        future.result()


@state("hang", quick=True)
def timer_pending(fork: ForkPoint) -> None:
    """A threading.Timer never fires in the child."""
    fired = threading.Event()
    timer = threading.Timer(0.2, fired.set)
    timer.daemon = True
    timer.start()
    if fork():
        fired.wait()


@state("hang", quick=True)
def executor_idle(fork: ForkPoint) -> None:
    """An idle worker of a pool: the first task that is handed to it is never run."""
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    executor.submit(len, "").result()
    if fork():
        executor.submit(len, "").result()


@state("hang")
def executor_with_spare_workers(fork: ForkPoint) -> None:
    """With room for more workers the first task still waits for the one that is not there."""
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(4)
    executor.submit(len, "").result()
    while not executor._idle_semaphore._value:  # noqa: SLF001 - has no other name
        os.sched_yield()
    if fork():
        executor.submit(len, "").result()


@state("hang", quick=True)
def output_lock_held(fork: ForkPoint) -> None:
    """A buffered writer in which another thread stands, its pipe being full."""
    receive, send = os.pipe()
    writer = os.fdopen(send, "wb")
    start_quietly(lambda: writer.write(bytes(1_000_000)))
    _wait_until_full(receive)
    if fork():
        writer.write(b"x")


@state("hang")
def standard_output_lock_held(fork: ForkPoint) -> None:
    """The same with sys.stdout, redirected after the fork as a daemon does."""
    receive, send = os.pipe()
    os.dup2(send, 1)
    start_quietly(lambda: sys.stdout.buffer.write(bytes(1_000_000)))
    _wait_until_full(receive)
    if fork():
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        sys.stdout.write("hello\n")
        sys.stdout.flush()


def _wait_until_full(receive: int) -> None:
    import fcntl
    import struct
    import termios

    while True:
        answer = fcntl.ioctl(receive, termios.FIONREAD, b"\0\0\0\0")
        if struct.unpack("i", answer)[0] >= 65536:
            return
        os.sched_yield()


@state("hang", quick=True)
def module_being_imported(fork: ForkPoint) -> None:
    """A module that another thread is importing cannot be imported in the child."""
    import tempfile

    sys.dont_write_bytecode = True
    folder = tempfile.mkdtemp()
    Path(folder, "slow_module.py").write_text("import time, os\nos.going = 1\ntime.sleep(3600)\n")
    sys.path.insert(0, folder)
    start_quietly(lambda: __import__("slow_module"))
    while not hasattr(os, "going"):
        os.sched_yield()
    Path(folder, "slow_module.py").unlink()
    Path(folder).rmdir()
    if fork():
        __import__("slow_module")


@state("hang", quick=True)
def logging_lock_held(fork: ForkPoint) -> None:
    """Another thread holds logging's lock: os.fork() itself never returns, in the parent."""
    import logging

    hold(logging._lock)  # type: ignore[attr-defined]  # noqa: SLF001 - which its hook takes
    if fork():
        return


@state("hang")
def executors_lock_held(fork: ForkPoint) -> None:
    """Another thread holds the executors' lock: os.fork() waits for it, in the parent."""
    import concurrent.futures.thread as futures

    hold(futures._global_shutdown_lock)  # noqa: SLF001 - as above
    if fork():
        return


@state("hang", quick=True)
def raw_thread(fork: ForkPoint) -> None:
    """A thread of `_thread`, which the threading module does not know."""
    import _thread

    lock, held = threading.Lock(), threading.Event()

    def keep() -> None:
        with lock:
            held.set()
            time.sleep(3600)

    _thread.start_new_thread(keep, ())
    held.wait()
    if fork():
        with lock:
            pass


@state("hang")
def raw_thread_in_c(fork: ForkPoint) -> None:
    """A thread of `_thread` that runs a function in C, so that it has no Python frame."""
    import _thread

    lock = threading.Lock()
    lock.acquire()
    _thread.start_new_thread(lock.acquire, ())
    _wait_for_tasks(2)
    if fork():
        _thread.start_new_thread(time.sleep, (3600,))
        with lock:
            pass


@state("hang", quick=True)
def faulthandler_watchdog(fork: ForkPoint) -> None:
    """The watchdog of faulthandler: a child that only exits never ends."""
    import faulthandler

    faulthandler.dump_traceback_later(600)
    if fork():
        sys.exit(0)


@state("hang")
def queue_listener(fork: ForkPoint) -> None:
    """A logging listener: records of the child are written by nobody, and stop() waits."""
    import logging.handlers
    import queue

    box = queue.Queue[object]()
    listener = logging.handlers.QueueListener(box)
    listener.start()
    if fork():
        box.put(logging.makeLogRecord({}))
        box.join()


@state("hang")
def fork_in_another_thread(fork: ForkPoint) -> None:
    """A fork in another thread, while the main one holds a lock."""
    lock = threading.Lock()

    def work() -> None:
        if fork():
            with lock:
                pass
            os._exit(0)

    with lock:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


@state("hang")
def dead_waiter(fork: ForkPoint) -> None:
    """A waiter of the parent's swallows the first notification in the child."""
    condition, ready = threading.Condition(), threading.Event()

    def wait() -> None:
        with condition:
            ready.set()
            condition.wait()

    threading.Thread(target=wait, daemon=True).start()
    ready.wait()
    with condition:
        pass
    if fork():
        ready.clear()
        again = threading.Thread(target=wait, daemon=True)
        again.start()
        ready.wait()
        with condition:
            condition.notify()
        again.join()


@state("hang", quick=True)
def posix_timer_thread(fork: ForkPoint) -> None:
    """The thread that the C library keeps for timers with SIGEV_THREAD fires in no child."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    event = (ctypes.c_void_p * 8)()
    callback_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    fired = threading.Event()
    callback = callback_type(lambda _: fired.set())
    event[1] = 2 << 32  # sigev_signo 0, sigev_notify SIGEV_THREAD
    event[2] = ctypes.cast(callback, ctypes.c_void_p).value or 0
    timer = ctypes.c_void_p()
    assert libc.timer_create(1, event, ctypes.byref(timer)) == 0
    _wait_for_tasks(2)
    if fork():
        when = (ctypes.c_long * 4)(0, 0, 0, 1_000_000)
        libc.timer_settime(timer, 0, when, None)
        fired.wait()


def _wait_for_tasks(count: int) -> None:
    """Wait until the kernel counts *count* threads and the last of them sleeps."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        tasks = sorted(Path("/proc/self/task").iterdir())
        if len(tasks) >= count:
            state_of_last = (tasks[-1] / "stat").read_text().rpartition(")")[2].split()[0]
            if state_of_last == "S":
                return
        os.sched_yield()
