"""Descriptors 0, 1 and 2, and the text streams that sit on them.

Invariant of every function that opens something here: a spare descriptor is closed exactly once,
and only if it is above 2, because a process may be started with any of 0-2 closed, and then the
"spare" is one of the standard descriptors itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_STANDARD = (0, 1, 2)


def hold_standard_descriptors() -> None:
    """Open /dev/null on each of 0, 1, 2 that is closed, so that no later open lands there.

    Without it a listener, a pid file or a report pipe can become descriptor 0-2 and is replaced
    when the standard descriptors are redirected.

    Does not touch those that are open. The process must have one thread.

    Raises:
        OSError: /dev/null cannot be opened.

    Source: open(2) (the lowest descriptor is taken), daemon(7) step 9.
    """
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # The lowest free number: the ones below were found, or made, open.
            opened = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.set_inheritable(opened, True)  # noqa: FBT003 - the call has no name for it


def flush_standard_streams() -> None:
    """Write out what Python's own stdout and stderr still hold.

    Before a fork, so that the text is written once and not by both processes, or by neither.
    What cannot be written (a closed stream, a full disk, a terminal that went away) is left: a
    service must not fail to start for that.
    """
    # Both names of each: a program may have put its own object in place of the first.
    seen: list[object] = []
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is None or any(stream is other for other in seen):
            continue
        seen.append(stream)
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue


def redirect(stdin: int, stdout: int, stderr: int) -> None:
    """Make 0, 1 and 2 copies of the given descriptors, inherited across exec.

    Right also when an argument is itself one of 0-2 (exchanging them works), and when some of 0-2
    were closed. Does not close the arguments.

    Raises:
        OSError: An argument is not open (EBADF); what was redirected before it stays so.

    Source: dup2(2), fcntl(2) F_DUPFD_CLOEXEC.
    """
    sources = [stdin, stdout, stderr]
    saved: list[int] = []
    try:
        for target, source in enumerate(sources):
            # By the time *target* is made, *source* is replaced already: keep what it was.
            if source < target and sources[source] != source:
                copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 3)
                saved.append(copy)
                sources[target] = copy
        for target, source in enumerate(sources):
            if source == target:
                # dup2(n, n) does nothing, not even clear close-on-exec: a /dev/null that was
                # opened as descriptor 0 would be missing in every command the service runs.
                os.set_inheritable(target, True)  # noqa: FBT003 - the call has no name for it
            else:
                _duplicate(source, target)
    finally:
        for copy in saved:
            os.close(copy)


def redirect_stdio() -> None:
    """Put /dev/null on 0, 1 and 2. Doing it twice is the same as doing it once.

    Text that Python's streams still hold goes to /dev/null too: flush first.

    Raises:
        OSError: /dev/null cannot be opened.

    Source: daemon(7) step 9.
    """
    spare = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        redirect(spare, spare, spare)
    finally:
        if spare > _STANDARD[-1]:
            os.close(spare)


def close_fd() -> None:
    """Close 0, 1 and 2, each once; one that was closed before is no error.

    Dangerous by nature: the next three opens get these numbers, and every library that writes to
    descriptor 2 writes there. `redirect_stdio` is nearly always what is wanted.

    Raises:
        OSError: A close failed for another reason than EBADF or EINTR (all three were tried).

    Source: close(2).
    """
    failed: OSError | None = None
    for descriptor in _STANDARD:
        try:
            close_once(descriptor)
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def close_once(descriptor: int, *, close: Callable[[int], None] = os.close) -> None:
    """Close *descriptor* with one call of *close*; "not open" and "interrupted" are success.

    Raises:
        OSError: Any other failure, such as EIO or ENOSPC of a file that was written.

    Source: close(2), on EINTR: Linux has released the descriptor by then, so a second close could
    close what another thread has just opened under the same number.
    """
    try:
        close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINTR):
            raise


def _duplicate(source: int, target: int) -> None:
    """dup2(2), again when it was interrupted: unlike a close it may be repeated safely."""
    while True:
        try:
            os.dup2(source, target, inheritable=True)
        except InterruptedError:
            continue
        return
