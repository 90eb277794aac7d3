"""The signal actions and the signal mask that a service starts with.

Both are inherited through fork and exec: a service started from `nohup`, from a shell's background
job or by a program that blocks SIGTERM would otherwise never see the signal that is to stop it.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_UNCATCHABLE = frozenset({int(signal.SIGKILL), int(signal.SIGSTOP)})
# The threads library's own (NPTL: cancellation and set*id). glibc hides them, musl need not.
_THREAD_LIBRARY = frozenset({32, 33})


def reset_handlers(*, for_exec: bool = False) -> None:
    """Set every signal to what a fresh interpreter has, and forget the wakeup descriptor.

    That is the default action, with three exceptions that Python makes for itself before it runs a
    program's first line, and that a program tested with `python app.py` therefore relies on:
    SIGPIPE is ignored (a write to a closed connection raises BrokenPipeError instead of ending a
    server), SIGXFSZ is ignored (a write beyond the file size limit raises OSError), and SIGINT
    raises KeyboardInterrupt. With *for_exec* they get the default action too: another program
    must not inherit them.

    Leaves alone signals that are at their default as far as Python knows: the fault handler's
    (SIGSEGV and so on) were set behind its back and are wanted.

    Call it in the main thread.

    Raises:
        ValueError: This is not the main thread.

    Source: signal(7), daemon(7) step 2.
    """
    signal.set_wakeup_fd(-1)  # an event loop's: the parent would be woken by our signals
    keep: dict[int, object] = {}
    if not for_exec:
        keep[signal.SIGINT] = signal.default_int_handler
        keep[signal.SIGPIPE] = signal.SIG_IGN
        if hasattr(signal, "SIGXFSZ"):
            keep[signal.SIGXFSZ] = signal.SIG_IGN
    for number in _list_catchable():
        wanted = keep.get(number, signal.SIG_DFL)
        if signal.getsignal(number) is not wanted:
            signal.signal(number, wanted)  # type: ignore[arg-type]


def unblock_all() -> None:
    """Block no signal in this thread.

    Those that are pending are delivered at once: reset the handlers first.

    Source: sigprocmask(2), daemon(7) step 3.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def block(numbers: Iterable[int]) -> frozenset[int]:
    """Block *numbers* too in this thread, and return what was blocked before, for `set_mask`.

    Source: sigprocmask(2).
    """
    return frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, numbers)))


def block_all() -> frozenset[int]:
    """Block every signal that can be blocked, and return what was blocked before.

    Source: sigprocmask(2).
    """
    return block(signal.valid_signals())


def set_mask(numbers: Iterable[int]) -> None:
    """Block exactly *numbers* in this thread.

    Source: sigprocmask(2).
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, numbers)


def _list_catchable() -> list[int]:
    """Return every number that an action can be set for, real-time signals included."""
    return sorted({*map(int, signal.valid_signals())} - _UNCATCHABLE - _THREAD_LIBRARY)
