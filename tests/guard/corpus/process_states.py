"""multiprocessing, subinterpreters, and other company of a process."""
# ruff: noqa: PLC0415 - a state imports what it is about, where it is about it

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any

from guard.corpus.registry import ForkPoint, state


@state("wrong", quick=True)
def daemonic_worker(fork: ForkPoint) -> None:
    """A child that leaves by sys.exit() terminates its parent's daemonic worker."""
    import multiprocessing

    worker = multiprocessing.get_context("fork").Process(
        target=time.sleep, args=(3600,), daemon=True
    )
    worker.start()
    if fork():
        sys.exit(0)
    fork.wait_for_child()
    time.sleep(0.05)
    assert worker.is_alive(), f"the worker ended with {worker.exitcode}"


@state("wrong")
def worker_to_join(fork: ForkPoint) -> None:
    """A child can join no worker of its parent."""
    import multiprocessing

    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.2,))
    worker.start()
    if fork():
        worker.join()
        os._exit(0)
    worker.join()


@state("hang", "wrong", quick=True)
def process_pool(fork: ForkPoint) -> None:
    """A multiprocessing pool has threads that hand out its work; the child has none."""
    import multiprocessing

    pool = multiprocessing.get_context("fork").Pool(1)
    assert pool.map(abs, [-1]) == [1]
    if fork():
        assert pool.map(abs, [-2]) == [2]


@state("hang", "wrong")
def process_pool_executor(fork: ForkPoint) -> None:
    """A ProcessPoolExecutor has a thread that feeds its workers."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    assert executor.submit(abs, -1).result() == 1
    if fork():
        assert executor.submit(abs, -2).result() == 2


@state("harmless", quick=True)
def process_pool_closed(fork: ForkPoint) -> None:
    """A pool that was closed and joined."""
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(abs, [-1]) == [1]
        pool.close()
        pool.join()
    if fork():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]


@state("harmless")
def worker_joined(fork: ForkPoint) -> None:
    """A worker that ended and was joined."""
    import multiprocessing

    worker = multiprocessing.get_context("fork").Process(target=int)
    worker.start()
    worker.join()
    if fork():
        again = multiprocessing.get_context("fork").Process(target=int)
        again.start()
        again.join()
        assert again.exitcode == 0


@state("harmless")
def worker_ended_not_joined(fork: ForkPoint) -> None:
    """A worker that has ended, though nobody asked for its status."""
    import multiprocessing

    worker = multiprocessing.get_context("fork").Process(target=int)
    worker.start()
    os.waitid(os.P_PID, worker.pid or 0, os.WEXITED | os.WNOWAIT)
    if fork():
        sys.exit(0)


@state("hang", "wrong")
def queue_feeder(fork: ForkPoint) -> None:
    """A worker that answers through a queue: the child and its parent take each other's answers."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    questions, answers = context.SimpleQueue(), context.SimpleQueue()
    worker = context.Process(target=_answer, args=(questions, answers), daemon=True)
    worker.start()
    if fork():
        questions.put("child")
        assert answers.get() == "child"
        os._exit(0)
    assert answers.get() == "parent"


def _answer(questions: Any, answers: Any) -> None:
    while True:
        answers.put(questions.get())


@state("harmless")
def spawned_worker_joined(fork: ForkPoint) -> None:
    """After a spawned worker the resource tracker stays, which does no harm."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    with lock:
        pass
    if fork():
        with lock:
            pass


@state("harmless")
def shared_memory(fork: ForkPoint) -> None:
    """Shared memory is shared, on purpose."""
    import mmap

    memory = mmap.mmap(-1, 4096)
    if fork():
        memory[:5] = b"child"
        os._exit(0)
    fork.wait_for_child()
    assert memory[:5] == b"child"


@state("hang", "crash", quick=True)
def subinterpreter_idle(fork: ForkPoint) -> None:
    """One idle subinterpreter: os.fork() does not return in the child, or kills it."""
    other = _interpreters().create()  # kept: the last reference to it would end it
    if fork():
        assert other is not None


@state("harmless")
def subinterpreter_destroyed(fork: ForkPoint) -> None:
    """A subinterpreter that was ended."""
    module = _interpreters()
    module.destroy(module.create())
    if fork():
        return


def _interpreters() -> Any:
    if sys.version_info >= (3, 13):
        import _interpreters
    else:
        _interpreters = importlib.import_module("_xxsubinterpreters")
    return _interpreters


@state("harmless")
def fork_server_stopped(fork: ForkPoint) -> None:
    """The contexts of multiprocessing, asked for and not used."""
    import multiprocessing
    import multiprocessing.forkserver

    multiprocessing.set_start_method("forkserver")
    if fork():
        assert multiprocessing.get_start_method() == "forkserver"


@state("hang", "wrong")
def manager_process(fork: ForkPoint) -> None:
    """A manager's process is shut down by the exit of a child that was not told of it."""
    import multiprocessing

    manager = multiprocessing.get_context("fork").Manager()
    values = manager.dict()
    values["a"] = 1
    if fork():
        sys.exit(0)
    fork.wait_for_child()
    assert manager._process.is_alive()  # type: ignore[attr-defined]  # noqa: SLF001 - no other  # type: ignore[attr-defined]
    assert values["a"] == 1
    assert "child" in values, "the manager's clean-up is guarded by pid, its process is not"
