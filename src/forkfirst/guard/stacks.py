"""Which library an OS thread lives in, read from the return addresses on its stack.

A thread that no part of Python knows has only a name, and most have inherited that ("python"). But
while it waits in the kernel, its stack tells which code called what: the outermost address that is
not the C library's belongs to whoever made the thread.

Used only after a thread was found, to say whose it is: some 100 µs a thread.

Source: proc_pid_syscall(5), proc_pid_maps(5), proc_pid_mem(5).
"""

from __future__ import annotations

import os
import struct
import sys

from forkfirst.guard.glance import read_whole
from forkfirst.values import Value

_WORD = struct.calcsize("P")
_STACK_LIMIT = 256 * 1024  # bytes read at most; idle workers use a few thousand
# Libraries through which everybody's threads start; the next address further in tells more.
_COMMON = (
    "libc.so",
    "libc-",
    "libpthread",
    "ld-linux",
    "ld-musl",
    "libstdc++",
    "libgcc_s",
    "libm.",
)


class Stack(Value):
    """What the stack of one thread tells.

    Attributes:
        low: The lowest address of the mapping that holds it.
        high: The end of that mapping; the thread's pthread_t lies below it.
        libraries: The files whose code it is in, outermost first, without the C library's.
    """

    low: int
    high: int
    libraries: tuple[str, ...]


def read_stacks(tids: tuple[int, ...]) -> dict[int, Stack]:
    """Return what can be read of the stacks of *tids*, which are threads of this process.

    A thread that runs at this moment, or whose stack the kernel does not show, is left out.
    """
    if not tids:
        return {}
    maps = _read_maps()
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        found = {tid: _read_stack(tid, maps, memory) for tid in tids}
    finally:
        os.close(memory)
    return {tid: stack for tid, stack in found.items() if stack is not None}


def is_interpreter(path: str) -> bool:
    """Return whether *path* is the file that holds CPython itself."""
    name = path.rpartition("/")[2]
    return name.startswith("libpython") or path == os.path.realpath(sys.executable)


class _Mapping(Value):
    low: int
    high: int
    executable: bool
    path: str


def _read_maps() -> list[_Mapping]:
    """Return the memory mappings in the order of their addresses."""
    found = []
    for line in read_whole("/proc/self/maps").decode(errors="replace").splitlines():
        span, rights, _, _, _, *path = line.split(maxsplit=5)
        low, _, high = span.partition("-")
        found.append(
            _Mapping(
                low=int(low, 16),
                high=int(high, 16),
                executable="x" in rights,
                path=path[0] if path else "",
            )
        )
    return found


def _read_stack(tid: int, maps: list[_Mapping], memory: int) -> Stack | None:
    from bisect import bisect_right  # noqa: PLC0415 - only for a thread that was found

    fields = read_whole(f"/proc/self/task/{tid}/syscall").split()
    if len(fields) < 2:  # noqa: PLR2004 - "running" stands alone; or the thread has ended
        return None
    pointer = int(fields[-2], 16)
    lows = [mapping.low for mapping in maps]
    place = bisect_right(lows, pointer) - 1
    if place < 0 or pointer >= maps[place].high:
        return None
    low, high = maps[place].low, maps[place].high
    size = min(high - pointer, _STACK_LIMIT) // _WORD * _WORD
    try:
        content = os.pread(memory, size, pointer)
    except OSError:
        return None
    return Stack(low=low, high=high, libraries=_read_libraries(content, maps, lows))


def _read_libraries(content: bytes, maps: list[_Mapping], lows: list[int]) -> tuple[str, ...]:
    from bisect import bisect_right  # noqa: PLC0415 - only for a thread that was found

    code = [mapping for mapping in maps if mapping.executable and mapping.path.startswith("/")]
    if not code:
        return ()
    lowest, highest = code[0].low, code[-1].high
    found: dict[str, None] = {}
    usable = len(content) // _WORD * _WORD
    for word in reversed(memoryview(content[:usable]).cast("P")):
        if not lowest <= word < highest:
            continue
        mapping = maps[bisect_right(lows, word) - 1]
        if word < mapping.high and mapping.executable and mapping.path.startswith("/"):
            name = mapping.path.rpartition("/")[2]
            if not name.startswith(_COMMON):
                found[mapping.path] = None
    return tuple(found)
