"""The other threads of this process: whose they are, and which of them survive a fork.

Only the thread that calls fork(2) exists in the child. What the others held or promised is lost
there: a lock is never released, a queue never read, a task that was handed to a pool never run.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import _count, get_native_id

from forkfirst.guard.glance import count_threads, read_whole
from forkfirst.guard.hazard import Hazard
from forkfirst.guard.stacks import Stack, is_interpreter, read_stacks
from forkfirst.values import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What the kernel calls the threads of runtimes that are known not to survive; by prefix.
RUNTIMES = {
    "tokio-": "Tokio",
    "lancedb-tokio": "Tokio",
    "opendal": "Tokio",
    "rayon": "Rayon",
    "polars-": "Rayon",
    "event_engine": "gRPC",
    "grpc_": "gRPC",
    "libuv-worker": "libuv",
    "iou-": "io_uring",
    "ZMQbg": "ZeroMQ",
    "rdk:": "librdkafka",
    "gmain": "GLib",
    "gdbus": "GLib",
    "cuda": "CUDA",
}
_OPENMP = ("libgomp", "libomp", "libiomp")
# Seconds more for threads that do not sleep yet: the kernel shows the stack of a sleeping one only,
# and OpenBLAS's spin for 0.1 s after each piece of work.
_SPIN = 0.25
_LOST = "a forked child would hang: these threads and their locks do not exist in it"


class Thread(Value):
    """One OS thread other than the one that looks.

    Attributes:
        tid: Its number in the kernel.
        comm: Its name in the kernel, at most 15 bytes.
        python: The `threading.Thread`, or None.
        known: Whether the interpreter has a state for it, so that it can run Python code.
        stack: What its stack tells, or None.
    """

    tid: int
    comm: str
    python: Any = None
    known: bool = False
    stack: Stack | None = None

    @property
    def library(self) -> str:
        """The path of the library that made it, or ""."""
        libraries = self.stack.libraries if self.stack else ()
        return next((path for path in libraries if not is_interpreter(path)), "")


def find_thread_hazards(*, grace: float) -> list[Hazard]:
    """Return what the other threads of this process mean for a fork.

    Waits up to *grace* seconds for threads that are just ending: an OS thread outlives its
    `Thread.join()` by up to some milliseconds. Harmless ones are not waited for. If all that are
    left are busy natives, waits a quarter of a second more, to see whose they are.
    """
    if count_threads() <= 1:
        return []
    threads = _wait_for_the_ending(grace)
    hazards = [_make_hazard(kind, detail, group) for kind, detail, group in _group(threads)]
    if any(hazard.refuses for hazard in hazards):
        hazards += _find_held_locks()
    return hazards


def _wait_for_the_ending(grace: float) -> list[Thread]:
    """Return the other threads, as soon as all are harmless or else after *grace* seconds."""
    deadline = time.monotonic() + grace
    pause = 0.0  # first only yield: most threads are gone in microseconds
    while True:
        threads = read_threads()
        suspects = [thread for thread in threads if not _survivor(thread)]
        spinning = grace and all(thread.stack is None for thread in suspects)
        if not suspects or time.monotonic() >= deadline + (_SPIN if spinning else 0):
            return threads
        time.sleep(pause)
        pause = min(2 * pause + 0.00005, 0.005)


def read_threads() -> list[Thread]:
    """Return the other threads of this process, with all that can be seen of them."""
    own = get_native_id()
    try:
        names = os.listdir("/proc/self/task")
    except OSError:
        return _read_python_threads()
    tids = tuple(tid for tid in map(int, names) if tid != own)
    module = sys.modules.get("threading")
    active = list(getattr(module, "_active", {}).values())
    by_tid = {getattr(thread, "native_id", None): thread for thread in active}
    identities = tuple(sys._current_frames())  # noqa: SLF001 - documented, though named so
    stacks = read_stacks(tids)
    found = []
    for tid in tids:
        comm = _read_comm(tid)
        if not comm:
            continue  # it ended while we looked
        stack = stacks.get(tid)
        # A pthread_t is an address at the top of its thread's stack (glibc, musl): so even a
        # thread of `_thread.start_new_thread`, which threading never saw, is told from a native.
        known = stack is not None and any(stack.low <= each < stack.high for each in identities)
        python = by_tid.get(tid)
        known = known or python is not None
        found.append(Thread(tid=tid, comm=comm, python=python, known=known, stack=stack))
    return _adopt_frameless(found, own)


def _adopt_frameless(threads: list[Thread], own: int) -> list[Thread]:
    """Mark as Python's those that run a function in C, so that they have no Python frame.

    The interpreter counts what it started; what is missing must be among the threads in which only
    the interpreter's own code is on the stack.
    """
    main = os.getpid()
    started = _count() - (own != main)  # the main thread was not started by the interpreter
    missing = started - sum(thread.known and thread.tid != main for thread in threads)
    found = []
    for thread in threads:
        adopt = missing > 0 and not thread.known and thread.tid != main and not thread.library
        missing -= adopt
        found.append(replace(thread, known=True) if adopt else thread)
    return found


def _read_python_threads() -> list[Thread]:
    """Return what the interpreter knows, where there is no /proc."""
    module = sys.modules.get("threading")
    active = getattr(module, "_active", {})
    own = getattr(module, "get_ident", lambda: 0)()
    return [
        Thread(tid=identity, comm="", python=active.get(identity), known=True)
        for identity in sys._current_frames()  # noqa: SLF001 - documented, though named so
        if identity != own
    ]


def _read_comm(tid: int) -> str:
    return read_whole(f"/proc/self/task/{tid}/comm").decode(errors="replace").rstrip("\n")


def _survivor(thread: Thread) -> str:
    """Return what a thread is, if it is known to be mended or not needed in a child; else ""."""
    name = thread.library.rpartition("/")[2]
    if "openblas" in name and not _uses_openmp(thread):
        return "OpenBLAS's pool, which stops itself before a fork"
    if thread.comm.startswith("jemalloc_bg"):
        return "jemalloc's background thread, which a child makes anew"
    if thread.comm.startswith("polars-ooc"):
        return "polars' cleaner of spilled files, which a child does without"
    target = getattr(thread.python, "_target", None)
    owner = getattr(target, "__self__", None)
    if type(owner).__module__.startswith("opentelemetry.") and hasattr(owner, "_at_fork_reinit"):
        return "OpenTelemetry's worker, which a child starts anew"
    cache = sys.modules.get("trio._core._thread_cache")
    idle = getattr(getattr(cache, "THREAD_CACHE", None), "_idle_workers", ())
    # Newer trio forgets its idle workers in a child; an older one would hand them work.
    if hasattr(cache, "clear_worker_threads") and owner is not None and owner in idle:
        return "trio's idle worker, which a child forgets"
    return ""


def _uses_openmp(thread: Thread) -> bool:
    libraries = thread.stack.libraries if thread.stack else ()
    return any(path.rpartition("/")[2].startswith(_OPENMP) for path in libraries)


def _classify(thread: Thread) -> tuple[str, str]:
    """Return the kind of hazard that a thread is, and whose it is."""
    harmless = _survivor(thread)
    if harmless:
        return "self-healing", harmless
    if thread.tid == os.getpid():
        return "main-thread", "the fork would happen in another thread than the main one"
    if thread.known:
        return _classify_python(thread)
    return _classify_native(thread)


def _classify_native(thread: Thread) -> tuple[str, str]:
    if _uses_openmp(thread):
        return "runtime-threads", "OpenMP's pool"
    library = _name_library(thread.library)
    for prefix, runtime in RUNTIMES.items():
        if thread.comm.startswith(prefix):
            return "runtime-threads", f"{runtime}, in {library}" if library else runtime
    if thread.stack and not library and "faulthandler" in sys.modules:
        return "watchdog-thread", "faulthandler.dump_traceback_later()"
    return "native-threads", f"of {library}" if library else ""


def _classify_python(thread: Thread) -> tuple[str, str]:
    futures = sys.modules.get("concurrent.futures.thread")
    if thread.python is not None and thread.python in getattr(futures, "_threads_queues", ()):
        return "executor-threads", "a ThreadPoolExecutor that was not shut down"
    target = getattr(thread.python, "_target", None) or getattr(thread.python, "run", None)
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", "")
    return "python-threads", f"running {module}.{name}" if module and name else ""


def _name_library(path: str) -> str:
    """Return "obstore/_obstore.abi3.so": the file, with its package where it is in one."""
    folder, _, name = path.rpartition("/")
    package = folder.rpartition("/")[2]
    return f"{package}/{name}" if package and "site-packages" in folder else name


def _group(threads: list[Thread]) -> list[tuple[str, str, list[Thread]]]:
    """Return the threads by kind, owner and name without its number."""
    groups: dict[tuple[str, str, str], list[Thread]] = {}
    for thread in threads:
        kind, detail = _classify(thread)
        groups.setdefault((kind, detail, _stem(thread)), []).append(thread)
    return [(kind, detail, group) for (kind, detail, _), group in groups.items()]


def _stem(thread: Thread) -> str:
    name = str(getattr(thread.python, "name", "") or thread.comm)
    return name.partition(" (")[0].rstrip("0123456789").rstrip("-_ ") or name


def _make_hazard(kind: str, detail: str, group: list[Thread]) -> Hazard:
    count, name = len(group), _stem(group[0])
    if kind == "main-thread":
        subject = "fork from a thread that is not the main one"
    else:
        sort = "Python" if group[0].known else "native"
        times = f" ×{count}" if count > 1 else ""
        subject = f"{count} {sort} thread{'' if count == 1 else 's'}: {name}{times}"
    harmless = kind == "self-healing"
    fatal = kind in {"runtime-threads", "watchdog-thread"}
    return Hazard(
        kind=kind,
        certainty="notice" if harmless else "fatal" if fatal else "danger",
        subject=subject,
        detail=detail,
        name=name,
        things=tuple(f"tid {thread.tid}" for thread in group),
        consequence="" if harmless else _LOST,
        remedy=_REMEDIES.get(kind, ""),
    )


_REMEDIES = {
    "runtime-threads": "use that library for the first time inside main()",
    "native-threads": "use that library for the first time inside main()",
    "python-threads": "start the threads inside main()",
    "executor-threads": "make the executor inside main(), or shut it down before",
    "watchdog-thread": "call faulthandler.cancel_dump_traceback_later() before",
    "main-thread": "fork from the main thread, before any other is started",
}


def _find_held_locks() -> list[Hazard]:
    """Find interpreter-wide locks that another thread holds: os.fork() would wait for some.

    The `before` hooks of a fork take logging's lock and the executors' lock, so a fork hangs in the
    *parent* if their holder does not come back; a module's import lock stays taken in the child.
    """
    held = []
    logging = sys.modules.get("logging")
    futures = sys.modules.get("concurrent.futures.thread")
    for name, lock in (
        ("logging's lock", getattr(logging, "_lock", None)),
        ("the executors' lock", getattr(futures, "_global_shutdown_lock", None)),
    ):
        if lock is not None and not _try(lock):
            held.append(name)
    bootstrap = sys.modules.get("_frozen_importlib")
    importing = list(getattr(bootstrap, "_module_locks", None) or ())
    held += [f"the import lock of {module}" for module in importing]
    return [
        Hazard(
            kind="held-lock",
            certainty="fatal",
            subject=f"{name} is held by another thread",
            name=name,
            things=(f"lock {name}",),
            consequence="the fork itself would wait for it, or the child would wait for ever",
            remedy="wait until that thread is done",
        )
        for name in held
    ]


def _try(lock: Any) -> bool:
    if not lock.acquire(blocking=False):
        return False
    lock.release()
    return True
