"""Which descriptors this process has, and closing those that it should not have.

Never a loop to RLIMIT_NOFILE: with a limit of 2^30, as containers have it, such a loop takes
minutes. What is closed is what is open, read from the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LISTINGS = ("/proc/self/fd", "/dev/fd")
_FIRST = 3  # 0, 1 and 2 are the matter of stdio
# Where nothing can list the descriptors: FreeBSD's closerange is one system call whatever the
# bound is; elsewhere it may be a loop, and 65536 calls take about 5 ms.
_BLIND_END = 2**31 - 1 if sys.platform.startswith("freebsd") else 65536


def list_open() -> tuple[int, ...]:
    """Return every open descriptor, in order, without the one that the listing itself needed.

    Raises:
        OSError: Neither /proc/self/fd nor /dev/fd tells (ENOSYS).

    Source: proc(5).
    """
    listed = _read_listing()
    if listed is None:
        message = "cannot list the open descriptors: neither /proc nor /dev/fd tells"
        raise OSError(errno.ENOSYS, message)
    return tuple(descriptor for descriptor in listed if _is_open(descriptor))


def close_all_except(keep: Iterable[int]) -> None:
    """Close every descriptor above 2 that is not in *keep*.

    Costs one system call for each unbroken run of descriptors where the interpreter has
    close_range(2), one for each descriptor where it has not. Python objects that own a closed
    descriptor are not told: call it where none is left, and with one thread.

    Source: close_range(2), daemon(7) step 1.
    """
    kept = {descriptor for descriptor in keep if descriptor >= _FIRST}
    listed = _read_listing()
    if listed is None:
        _close_blindly(sorted(kept))
        return
    # The listing has the number of its own descriptor, closed by now; to close that again is
    # harmless in a process with one thread.
    unwanted = [number for number in listed if number >= _FIRST and number not in kept]
    for first, last in _find_runs(unwanted):
        os.closerange(first, last + 1)


def set_inheritable_only(keep: Iterable[int]) -> None:
    """Let exec(2) pass on 0-2 and exactly the descriptors of *keep*; all others are closed by it.

    Raises:
        OSError: A descriptor of *keep* is not open, or descriptors cannot be listed.

    Source: fcntl(2) FD_CLOEXEC.
    """
    kept = set(keep)
    for descriptor in list_open():
        if descriptor >= _FIRST and descriptor not in kept:
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - the call has no name for it
    for descriptor in kept:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - the call has no name for it


def open_memory_file(name: str) -> int:
    """Return a new, empty file that is nowhere on a disk, close-on-exec; *name* is for who looks.

    Where there are none, it is one on the disk without a name.

    Source: memfd_create(2).
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    import tempfile  # noqa: PLC0415 - only where there are no files in memory

    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd


def _read_listing() -> list[int] | None:
    for directory in _LISTINGS:
        # FreeBSD without fdescfs has a /dev/fd that knows 0, 1 and 2 only: a listing that does
        # not know a descriptor which is certainly open is not believed.
        try:
            probe = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            probe = -1
        try:
            listed = sorted(int(name) for name in os.listdir(directory))
        except (OSError, ValueError):
            continue
        finally:
            if probe >= 0:
                os.close(probe)
        if probe < 0 or probe in listed:
            return listed
    return None


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _find_runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of neighbours in *numbers*, which are in order."""
    first = last = -2
    for number in numbers:
        if number == last + 1:
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last


def _close_blindly(kept: list[int]) -> None:
    start = _FIRST
    for descriptor in kept:
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, _BLIND_END)
