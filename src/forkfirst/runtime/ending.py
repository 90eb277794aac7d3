"""How the end of a program becomes an exit status, and what a person reads about it.

| the program | status |
|---|---|
| returned | 0, or the number that it returned |
| was ended by the stop that it was asked for | 0 |
| called `sys.exit(n)` | n |
| raised, before it was ready | 70, and the traceback |
| raised, when it was ready | 1, and the traceback |
| did not end in the grace period | 1, with its stacks (see `stopping`) |
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from forkfirst.runtime.context import Context

FAILED_BEFORE_READY = 70
FAILED = 1
_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_IMPORT_FRAMES = "<frozen importlib"


class Ending:
    """What became of one program. The first failure stands; an end after it changes nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.status = 0
        self.has_ended = False

    def returned(self, result: object) -> None:
        """Note that main returned *result*; as for a console script, a number is the status."""
        if isinstance(result, int):
            self._note(int(result) & 0xFF)
        self._finish()

    def raised(self, error: BaseException) -> None:
        """Note that main ended by *error*, and print its traceback if it is a failure."""
        error = unwrap(error)
        if isinstance(error, SystemExit):
            self._note(status_of_exit(error.code))
        elif isinstance(error, Exception | BaseExceptionGroup) or not self._context.stopping:
            print_error(error)
            self._context.failure = self._context.failure or error
            self._note(FAILED if self._context.is_ready else FAILED_BEFORE_READY)
        # Else the stop itself: a cancellation of asyncio or trio, or KeyboardInterrupt. No failure.
        self._finish()

    def _note(self, status: int) -> None:
        self.status = self.status or status

    def _finish(self) -> None:
        self.has_ended = True
        self._context.ended_by_itself = not self._context.stopping
        self._context.begin_stopping()  # or its tasks and threads would wait for that for ever


def unwrap(error: BaseException) -> BaseException:
    """Return the one error in a group that holds only one, else *error* itself.

    Cancellations in it do not count, and `sys.exit` in one task of many is an exit, not a group.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_list_leaves(error))
    telling = [one for one in leaves if isinstance(one, Exception | SystemExit)] or leaves
    failures = [one for one in telling if isinstance(one, Exception)]
    if not failures or len(telling) == 1:
        return telling[0]
    return error


def status_of_exit(code: object) -> int:
    """Return the exit status that `sys.exit(code)` gives; a text is printed, as Python does."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr, flush=True)  # noqa: T201 - what sys.exit("text") does
    return 1


def print_error(error: BaseException) -> None:
    """Print the traceback of *error* on stderr, without the frames that are not the program's.

    Goes through `sys.excepthook`, where error reporters listen.
    """
    error = error.with_traceback(trim_traceback(error.__traceback__))
    try:
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
    except Exception:  # noqa: BLE001 - a broken hook or stream must not hide the end
        sys.__excepthook__(type(error), error, error.__traceback__)


def trim_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """Return *traceback* without its leading frames of forkfirst and of the import."""
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if not name.startswith((_OWN_FOLDER, _IMPORT_FRAMES)):
            break
        traceback = traceback.tb_next
    return traceback


def _list_leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for one in group.exceptions:
        leaves += _list_leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return leaves
