"""Says where a running program is: the stack of every thread, the await chain of every task.

Pure reading, for a thread of its own, also while the loop is stuck. The program goes on meanwhile,
so what one call says is not one moment: each stack is read in a few microseconds, one after the
other, and source lines are looked up only when all are read. Nothing here runs the program's code,
not even a `__repr__`, and no reference to a frame or a task outlives the reading.

Stacks are text, newest call last as in a traceback, so that an editor can follow each
`File "...", line N`. An await chain reads the same way: the task's own coroutine first, what it
waits for last.
"""

from __future__ import annotations

import gc
import linecache
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator
    from types import CodeType, FrameType
    from typing import Any, TypeAlias

    Place: TypeAlias = tuple[CodeType, int | None, dict[str, Any]]
    Chain: TypeAlias = tuple[str, list[Place], str]  # what was left out, the places, how it ends
    Reading: TypeAlias = tuple[int, str, Chain]

MAX_TEXT = 4 * 1024 * 1024
"""Characters after which no further thread or task is described, only counted."""

MAX_TASKS = 5000
"""Tasks that are read at all; of a million no more would be learned, and it would take seconds."""

MAX_DEPTH = 200
"""Calls of a stack, the newest ones, or awaits of a chain, the outermost ones."""

MAX_LINE = 200
"""Characters of a source line."""

_ATTEMPTS = 10  # to copy a set that the loop changes meanwhile

_LINKS = (
    ("cr_frame", "cr_await", "cr_running"),  # a coroutine
    ("gi_frame", "gi_yieldfrom", "gi_running"),  # a generator, as __await__ methods often are
    # An async generator. Its ag_running is also true while it waits; if it runs, so does the
    # coroutine that awaits it, and that was asked before.
    ("ag_frame", "ag_await", ""),
)

# What CPython puts between two links. They have no attribute that says what they wait for, and gc
# is the public way to ask them. Not asked of others: an object's attributes are not its awaits.
_BETWEEN = (
    "FutureIter",
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
)


def describe_threads() -> str:
    """Return the Python stack of every thread but the calling one, the main thread first.

    The calling thread is left out because it would only show this function; the main thread never
    is. Each is named with its ident and the kernel's thread id, as `top -H` has it. Does not show
    frames of C code, nor threads that have never run Python.
    """
    known = {thread.ident: thread for thread in threading.enumerate()}
    main = threading.main_thread().ident
    own = threading.get_ident()
    readings: list[Reading] = []
    stacks = sys._current_frames()  # noqa: SLF001 - documented, and the only way
    for ident in sorted(stacks, key=lambda each: (each != main, each)):
        if ident == own != main:
            continue
        thread = known.get(ident)
        name = "of unknown name" if thread is None else f'"{thread.name}"'
        native = "" if thread is None else f", thread id {thread.native_id}"
        kind = " (main thread)" if ident == main else ""
        title = f"Thread {name}{kind}, ident {ident}{native}:"
        readings.append((0, title, _read_stack(stacks[ident])))
    stacks.clear()  # frames keep every local variable of the program alive
    return _describe(readings, 0, "threads")


def describe_asyncio_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Return every unfinished task of *loop*, with its state and its await chain.

    May be called from any thread, while the loop runs or not. A task that is running at this
    moment is shown by its stack, down to the call that keeps the loop.

    Raises:
        RuntimeError: The set of tasks changed each time that it was to be read.
    """
    import asyncio  # noqa: PLC0415 - a program with such a loop has loaded it

    for attempt in range(_ATTEMPTS):
        try:
            tasks = list(asyncio.all_tasks(loop))
            break
        except RuntimeError:  # "Set changed size during iteration"
            if attempt + 1 == _ATTEMPTS:
                raise
    tasks.sort(key=lambda task: (len(task.get_name()), task.get_name()))  # Task-9 before Task-10
    readings: list[Reading] = []
    for task in tasks[:MAX_TASKS]:
        coroutine = task.get_coro()
        state = _read_state(coroutine)
        if task.cancelling():
            state += ", being cancelled"
        readings.append((0, f'Task "{task.get_name()}", {state}:', _read_chain(coroutine)))
    left_out = len(tasks) - len(readings)
    tasks.clear()
    return _describe(readings, left_out, "tasks")


def describe_trio_tasks(root_task: Any) -> str:
    """Return the tree of tasks under *root_task*, each with its state and its await chain.

    *root_task* is what `trio.lowlevel.current_root_task()` gave within trio; None has no tasks.
    May be called from any thread. Needs no import of trio.
    """
    readings: list[Reading] = []
    left_out = 0
    waiting: list[tuple[int, Any]] = [] if root_task is None else [(0, root_task)]
    while waiting:
        depth, task = waiting.pop()
        if len(readings) == MAX_TASKS:
            left_out += 1
            continue
        state = _read_state(task.coro)
        readings.append((depth, f'Task "{task.name}", {state}:', _read_chain(task.coro)))
        children = [
            child for nursery in _copy(task.child_nurseries) for child in _children(nursery)
        ]
        waiting += [(depth + 1, child) for child in reversed(children)]
    return _describe(readings, left_out, "tasks")


def _children(nursery: Any) -> list[Any]:
    return sorted(_copy(nursery.child_tasks), key=lambda task: str(task.name))


def _copy(tasks: Iterable[Any]) -> list[Any]:
    """Return a copy of a set that may change meanwhile; of one that always does, nothing."""
    for _ in range(_ATTEMPTS):
        try:
            return list(tasks)
        except RuntimeError:
            continue
    return []


# -- reading: quick, and without source lines --------------------------------------------------


def _read_stack(frame: FrameType | None, until: FrameType | None = None) -> Chain:
    """Return the calls from *until*, or the first one, to *frame*, the newest one."""
    calls: list[Place] = []
    while frame is not None:
        calls.append((frame.f_code, frame.f_lineno, frame.f_globals))
        if frame is until:
            break
        frame = frame.f_back
    calls.reverse()
    own = _count_own(calls)
    if 0 < own < len(calls) <= own + MAX_DEPTH:
        times = "1 call" if own == 1 else f"{own} calls"
        return f"{times} of forkfirst before these", calls[own:], ""
    left_out = len(calls) - MAX_DEPTH
    return f"{left_out} calls before these" if left_out > 0 else "", calls[-MAX_DEPTH:], ""


def _count_own(calls: list[Place]) -> int:
    """Return how many of *calls*, oldest first, only lead from the command to the program."""
    names = [str(variables.get("__name__", "")) for _, _, variables in calls]
    count = 0
    while count < len(names) and names[count] in ("runpy", "__main__"):
        count += 1  # the script whose name was typed, or `python -m`
    before = count
    while count < len(names) and names[count].startswith("forkfirst."):
        count += 1
    return count if count > before else 0  # else it is another thread's, and begins elsewhere


def _read_state(coroutine: Any) -> str:
    if getattr(coroutine, "cr_running", False):
        return "running"
    if getattr(coroutine, "cr_frame", None) is None:
        return "finished"
    # None where another compiler made the coroutine: its state is then not to be had.
    return "not started" if getattr(coroutine, "cr_suspended", None) is False else "waiting"


def _read_chain(awaitable: Any) -> Chain:
    """Return where each link of the chain stands, the outermost first, and how it ends."""
    places: list[Place] = []
    for _ in range(MAX_DEPTH):
        # Asked of the class: an object's own __getattr__ would be the program's code.
        link = next((names for names in _LINKS if hasattr(type(awaitable), names[1])), None)
        if link is None:
            following = _look_between(awaitable)
            if following is None:
                return "", places, _describe_end(awaitable)
        else:
            frame = getattr(awaitable, link[0], None)
            if frame is not None and link[2] and getattr(awaitable, link[2], False):
                left_out, calls, _ = _read_running(frame)
                return left_out, [*places, *calls], ""
            if frame is not None:
                places.append((frame.f_code, frame.f_lineno, frame.f_globals))
            following = getattr(awaitable, link[1], None)
            if following is None:
                return "", places, ""
        awaitable = following
    return "", places, "and more awaits"


def _read_running(frame: FrameType) -> Chain:
    """Return the calls from *frame* to the newest, if a thread still runs it."""
    for newest in sys._current_frames().values():  # noqa: SLF001 - documented, and the only way
        each: FrameType | None = newest
        while each is not None:
            if each is frame:
                return _read_stack(newest, frame)
            each = each.f_back
    return "", [(frame.f_code, frame.f_lineno, frame.f_globals)], ""


def _look_between(awaitable: Any) -> Any:
    """Return what an object that CPython put into the chain stands for, or None."""
    if type(awaitable).__name__ not in _BETWEEN:
        return None
    for referent in gc.get_referents(awaitable):
        if isinstance(referent, type):
            continue  # its own class, on CPython 3.13
        if (
            any(hasattr(type(referent), names[1]) for names in _LINKS)
            or type(referent).__name__ in _BETWEEN
            or hasattr(type(referent), "_asyncio_future_blocking")  # as asyncio.isfuture() asks
        ):
            return referent
    return None


def _describe_end(awaitable: Any) -> str:
    kind = type(awaitable).__name__
    if not hasattr(type(awaitable), "_asyncio_future_blocking"):
        return f"waits in an object of {type(awaitable).__module__}.{kind}"
    if hasattr(type(awaitable), "get_name"):
        return f'waits for task "{awaitable.get_name()}"'
    if awaitable.done():
        return f"waited for a {kind} that is done: it goes on in the loop's next turn"
    return f"waits for a {kind}"


# -- describing: source lines may have to be read from files -----------------------------------


def _describe(readings: list[Reading], left_out: int, kind: str) -> str:
    source = _Source()
    texts: list[str] = []
    size = 0
    for depth, title, chain in readings:
        if size > MAX_TEXT:
            break
        indent = "    " * depth
        texts.append(f"{indent}{title}\n{source.describe(chain, indent + '  ')}")
        size += len(texts[-1])
    source.forget()
    left_out += len(readings) - len(texts)
    if left_out:
        texts.append(f"and {left_out} {kind} more\n")
    return "\n".join(texts) or f"no {kind}\n"


class _Source:
    """Describes places with their source lines, and forgets the files that it had to read.

    linecache keeps every file it has read for ever: a service that was once asked for its stacks
    would stay megabytes larger. What the program itself has put there stays.
    """

    def __init__(self) -> None:
        self._read: set[str] = set()

    def describe(self, chain: Chain, indent: str) -> str:
        left_out, places, end = chain
        lines = [left_out] if left_out else []
        lines += [line for place in places for line in self._describe_place(place)]
        lines += [end] if end else []
        return "".join(f"{indent}{line}\n" for line in lines or ["nothing to be seen"])

    def _describe_place(self, place: Place) -> Iterator[str]:
        code, line_number, variables = place
        file = code.co_filename
        yield f'File "{file}", line {line_number}, in {code.co_qualname}'
        if file not in linecache.cache:
            self._read.add(file)
        text = linecache.getline(file, line_number or 0, variables).strip()
        if text:
            yield f"  {text[:MAX_LINE]}"

    def forget(self) -> None:
        """Drop the files that were read for this description."""
        for file in self._read:
            linecache.cache.pop(file, None)
