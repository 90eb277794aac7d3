"""One cheap look at this process: is there anything at all that a fork could break?

The invariant of this file: it reads the number of threads, the flags of each descriptor and a few
names in `sys.modules`; it imports nothing, starts nothing, opens nothing that stays open, and never
walks the heap. A glance may suspect too much, never too little.

Measured by benchmarks/guard_cost.py.
"""

from __future__ import annotations

import fcntl
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_FEW_FILES = 100  # above, one look into /proc/locks is cheaper than one for each file
_ACCESS = os.O_RDWR | os.O_WRONLY
_ACCESS_AND_BLOCKING = _ACCESS | os.O_NONBLOCK
# What F_GETFL returns besides is O_LARGEFILE, which Python calls 0 where the kernel does not.
_UNKNOWN_FLAGS = ~(_ACCESS_AND_BLOCKING | os.O_APPEND | os.O_SYNC | getattr(os, "O_DIRECT", 0))
_TYPE_MASK = 0o170000
_REGULAR = 0o100000
_CHARACTER = 0o020000
# Of the anonymous descriptors only these two make a child hang; the others are told on a check.
_SUSPECT_LINKS = ("anon_inode:[eventpoll]", "anon_inode:[io_uring]")
# Memory devices (null, zero, random), consoles, /dev/tty and pseudo terminals: never a hazard.
_PLAIN_MAJORS = frozenset({1, 4, 5, *range(136, 144)})


def glance() -> str:
    """Return what looks suspicious ("threads", "loop", ...), or "" for a fork that is fine."""
    if count_threads() > 1:
        return "threads"
    modules = sys.modules
    if _sees_loop(modules):
        return "loop"
    if _sees_process(modules):
        return "process"
    return _glance_at_descriptors()


def count_threads() -> int:
    """Return the number of OS threads of this process, those that Python does not know included.

    Without a /proc only the threads with a Python thread state can be counted.

    Source: proc_pid_task(5): the directory has one entry a thread, hence that many links.
    """
    try:
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        return len(sys._current_frames())  # noqa: SLF001 - documented, though named so


def _sees_loop(modules: Mapping[str, Any]) -> bool:
    """Look for a loop that is running, or is the current one, in this thread."""
    events = modules.get("asyncio.events")
    if events is not None:
        running = getattr(events, "_get_running_loop", None)
        if running is not None and running() is not None:
            return True
        # Private, and gone some day: then a loop that is not running is seen by its epoll alone.
        local = getattr(getattr(events, "_event_loop_policy", None), "_local", None)
        if getattr(local, "_loop", None) is not None:
            return True
    trio = modules.get("trio._core._run")
    if trio is not None and hasattr(getattr(trio, "GLOBAL_RUN_CONTEXT", None), "runner"):
        return True
    sniffio = modules.get("sniffio._impl")
    return getattr(getattr(sniffio, "thread_local", None), "name", None) is not None


def _sees_process(modules: Mapping[str, Any]) -> bool:
    """Look for multiprocessing's children and for other interpreters in this process."""
    process = modules.get("multiprocessing.process")
    if process is not None and getattr(process, "_children", None):
        return True
    interpreters = modules.get("_interpreters") or modules.get("_xxsubinterpreters")
    return interpreters is not None and len(interpreters.list_all()) > 1


def _glance_at_descriptors() -> str:
    """Look at the flags of each open descriptor, at the type of few, at the name of fewer.

    fcntl(2) takes a quarter of the time of fstat(2) here, and that half of readlink(2)'s. Epolls,
    rings and devices are open for reading and writing and do not carry O_NONBLOCK, which nobody has
    a use for there; so pipes, files that are read and a server's sockets are told by their flags.
    """
    files = []
    fstat = os.fstat
    for descriptor, flags in _read_flags():
        # What open(2) opened has a flag more, which is the kernel's O_LARGEFILE.
        writable_file = flags & _ACCESS and flags & _UNKNOWN_FLAGS
        if not writable_file and flags & _ACCESS_AND_BLOCKING != os.O_RDWR:
            continue
        try:
            status = fstat(descriptor)
        except OSError:
            continue  # closed meanwhile, which only another thread could do
        kind = status[0] & _TYPE_MASK
        if kind == _REGULAR:
            files.append(descriptor)
        elif kind == 0:  # an anonymous inode has no type
            if _read_link(descriptor) in _SUSPECT_LINKS:
                return "descriptor"
        elif kind == _CHARACTER and status.st_rdev >> 8 & 0xFFF not in _PLAIN_MAJORS:
            return "device"
    return "record lock" if _holds_record_lock(files) else ""


def _read_flags() -> Iterator[tuple[int, int]]:
    """Yield each open descriptor with its flags; nothing where there is no /proc.

    Source: F_GETFL in fcntl(2); proc_pid_fd(5): since Linux 6.2 the size of the directory is the
    number of open descriptors, so that a dense table need not be listed, which would take longer
    than all the rest.
    """
    ask, get_flags = fcntl.fcntl, fcntl.F_GETFL
    try:
        left = os.stat("/proc/self/fd").st_size
        limit = left + 64 if left else 0  # a hole costs as much as a descriptor
        descriptor = 0
        while left and descriptor < limit:
            try:
                flags = ask(descriptor, get_flags)
            except OSError:
                pass  # a hole
            else:
                left -= 1
                yield descriptor, flags
            descriptor += 1
        if limit and not left:
            return
        rest = [number for number in map(int, os.listdir("/proc/self/fd")) if number >= descriptor]
    except OSError:
        return  # an epoll has not been invented there, and a kqueue is not inherited
    for number in rest:  # an older kernel, or a sparse table
        try:
            flags = ask(number, get_flags)
        except OSError:
            continue  # the descriptor of the listing itself
        yield number, flags


def _holds_record_lock(files: list[int]) -> bool:
    """Return whether a POSIX record lock is held through one of *files*; no child inherits it.

    For a few files not by /proc/locks: to open that waits for every CPU to leave the kernel's list
    of locks, 0.2 to 17 ms (measured), where the descriptor's own file costs 8 µs.

    Source: proc_pid_fdinfo(5), proc_locks(5), fcntl_locking(2).
    """
    if len(files) <= _FEW_FILES:
        return any(count_record_locks(descriptor) for descriptor in files)
    own = b"%d" % os.getpid()
    lines = read_whole("/proc/locks").splitlines()
    return any(b" POSIX " in line and own in line.split() for line in lines)


def count_record_locks(descriptor: int) -> int:
    """Return how many POSIX record locks are held through *descriptor*.

    Source: proc_pid_fdinfo(5).
    """
    return read_whole(f"/proc/self/fdinfo/{descriptor}").count(b" POSIX ")


def read_whole(path: str) -> bytes:
    """Return all of a file of /proc; empty if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _read_link(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
