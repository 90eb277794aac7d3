"""What a template does so that its workers go on sharing its memory with it.

A page is shared until somebody writes to it, and then it is copied, whole: 4 KiB for one word. So
what a worker writes should lie together, and what the others need not write should not be written.

Measured with eight workers of a program of 280 MiB (benchmarks/workers.py), after 50,000 requests:
what all processes of the service do not share was 46 MiB on CPython 3.11 and 39 on 3.13, and is 36
and 32. What is left is what any fork of Python pays: a worker has 3.9 and 3.4 MiB of its own, a
child of a bare `os.fork` that runs the same loop by hand 3.9 and 3.2.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_POOL_MASK = 0x3FFF  # pymalloc gives blocks of one size from a pool of 16 KiB ...
_POOL_HEADER = 48  # ... behind its header
_SIZES = range(48, 513, 16)  # of those blocks; what is larger comes from malloc(3)
_BYTES_HEADER = sys.getsizeof(b"")
_IN_A_ROW = 6
_MOST_BYTES = 4 << 20
"""Of one size that are tried: more only if there is another allocator than the one that we know."""

_fillers: list[bytes] = []
"""What lies in the holes; never freed, or they would be holes again."""


def leave_inherited() -> None:
    """Have no collection touch what this process was forked with, which the supervisor shares.

    0.75 MiB less in the supervisor.
    """
    import gc  # noqa: PLC0415 - built in

    gc.freeze()


def settle() -> None:
    """Prepare all that is in memory to be shared; to be called last, when everything is imported.

    What is alive now stays for good: no collection, here or in a worker, writes to its pages.
    """
    import gc  # noqa: PLC0415 - built in

    # Each of the 4096 places of the type cache holds a name. A worker that puts another one there
    # lets go of the old one, and so copies the page where that lies: 0.7 MiB in each on 3.11, and
    # up to 1.5 on 3.13 after an import that has opened many files.
    if sys.version_info >= (3, 13):
        sys._clear_internal_caches()  # noqa: SLF001 - documented, though named so
    else:
        sys._clear_type_cache()  # noqa: SLF001 - as above
    gc.collect()
    fill_holes()
    gc.freeze()


def fill_holes() -> None:
    """Have a worker's new objects lie together, on fresh pages: 0.3 MiB less in each.

    The import has left free blocks between what it made, one here and two there; the next objects
    would be put there, each on a page that is then copied. Knows how CPython's allocator gives out
    blocks; with another one, nothing is kept.
    """
    for size in _SIZES:
        found = _fill(size)
        if not found:
            return
        _fillers.extend(found)


def _fill(size: int) -> Iterable[bytes]:
    """Return what fills the holes for *size* bytes; nothing if a fresh pool is never reached."""
    made: list[bytes] = []
    row = before = 0
    while len(made) * size < _MOST_BYTES:
        made.append(bytes(size - _BYTES_HEADER))
        address = id(made[-1])
        if address & _POOL_MASK == _POOL_HEADER:
            row = 1
        else:
            row = row + 1 if row and address == before + size else 0
        before = address
        if row == _IN_A_ROW:  # from a pool's first block on: it is a fresh one
            return made[:-_IN_A_ROW]
    return ()
