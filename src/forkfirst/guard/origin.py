"""Who made what the guard finds: an import, or any other code, run under watch.

The watch is the interpreter's profile hook: after each call that returns, it reads the number of
threads and of open descriptors from the kernel, and when one has grown it notes which line of
whose code was running. So native threads are attributed as well as Python's own, to the import or
the call that made them appear. That costs about 4 µs a call, and is paid only inside the `with`.

Seen only in the thread that watches: what another thread makes is attributed to the line at which
the watched thread stood when it was noticed.
"""

from __future__ import annotations

import os
import sys

from forkfirst.guard.hazard import Hazard, Origin
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType, TracebackType
    from typing import Any, Self

_STARTS_A_PROCESS = frozenset({"fork", "forkpty", "fork_exec", "posix_spawn", "posix_spawnp"})
_STANDARD_LIBRARY = os.__file__.rpartition("/")[0] + "/"
_OURS = __file__.rpartition("/guard/")[0] + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/")


class Watch:
    """Notes who makes threads, loops, connections and processes while it is entered.

    with Watch() as watch:
        import legacy
    hazards = find_hazards(thorough=True, watch=watch)

    Does not nest, and takes the place of a profiler that is set, until it is left.
    """

    def __init__(self) -> None:
        self._origins: dict[str, Origin] = {}
        self._things: set[str] = set()
        self._counts = (0, 0)
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._things = {*_read_threads(), *_read_descriptors(), *_read_children()}
        self._counts = _count()
        self._previous = sys.getprofile()
        sys.setprofile(self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.setprofile(self._previous)

    def attribute(self, hazards: Iterable[Hazard]) -> list[Hazard]:
        """Return *hazards* with their origins, as far as they were seen being made."""
        return [self._attribute(hazard) for hazard in hazards]

    def _attribute(self, hazard: Hazard) -> Hazard:
        origin = next(
            (self._origins[each] for each in hazard.things if each in self._origins), None
        )
        if origin is None:
            return hazard
        if hazard.kind == "epoll" and origin.call.endswith("event_loop"):
            # Only the watch can tell: the loop is in a variable, where no guard may search.
            return replace(
                hazard,
                kind="idle-loop",
                certainty="fatal",
                detail="an event loop created, not running",
                origin=origin,
            )
        return replace(hazard, origin=origin)

    def _notice(self, frame: FrameType, event: str, argument: object) -> None:
        """Look, after a call, whether anything has grown (a profile function)."""
        if event in ("call", "c_call"):
            return
        counts = _count()
        started = event == "c_return" and getattr(argument, "__name__", "") in _STARTS_A_PROCESS
        if counts == self._counts and not started:
            return
        things = set(self._things)
        if counts[0] != self._counts[0]:
            things = _replace_sort(things, "tid", _read_threads())
        if counts[1] != self._counts[1]:
            things = _replace_sort(things, "fd", _read_descriptors())
        if started:
            things = _replace_sort(things, "pid", _read_children())
        new = things - self._things
        self._things, self._counts = things, counts
        if new:
            origin = find_origin(frame, argument if event.startswith("c_") else None)
            self._origins.update(dict.fromkeys(new, origin))


def find_origin(frame: FrameType, function: object = None) -> Origin:
    """Return whose line is responsible for what happens in *frame*.

    That is the innermost line outside the standard library and installed packages; if there is
    none, the innermost one outside the standard library.

    Args:
        frame: The innermost frame.
        function: The C function that is running on top of it, if any.
    """
    frames: list[FrameType] = []
    at: FrameType | None = frame
    while at is not None:
        frames.append(at)
        at = at.f_back
    place = next((i for i, each in enumerate(frames) if _is_personal(each.f_code)), None)
    if place is None:
        place = next((i for i, each in enumerate(frames) if not _is_standard(each.f_code)), 0)
    own = frames[place]
    module, call = "", getattr(function, "__qualname__", "")
    if place > 0:
        inner = frames[place - 1]
        module = _imported_name(inner)
        call = "" if module else _name(inner.f_code)
    return Origin(file=own.f_code.co_filename, line=own.f_lineno or 0, module=module, call=call)


def _imported_name(frame: FrameType) -> str:
    """Return the module that *frame*, if it is importlib's, is importing, else ""."""
    if not frame.f_code.co_filename.startswith("<frozen importlib"):
        return ""
    values = frame.f_locals
    name = values.get("name") or getattr(values.get("module"), "__name__", "")
    return str(name)


def _is_standard(code: CodeType) -> bool:
    file = code.co_filename
    if file.startswith(("<frozen", _OURS)):
        return True
    return file.startswith(_STANDARD_LIBRARY) and not any(part in file for part in _INSTALLED)


def _is_personal(code: CodeType) -> bool:
    return not _is_standard(code) and not any(part in code.co_filename for part in _INSTALLED)


def _name(code: CodeType) -> str:
    # asyncio's own names would show a policy class where the person wrote get_event_loop().
    return code.co_name if "/asyncio/" in code.co_filename else code.co_qualname


def _count() -> tuple[int, int]:
    """Return how many threads and descriptors there are, as cheaply as the kernel can say.

    The second is 0 before Linux 6.2, where the size of /proc/self/fd is not kept; then descriptors
    are not attributed.
    """
    try:
        threads = os.stat("/proc/self/task").st_nlink
        return threads, os.stat("/proc/self/fd").st_size
    except OSError:
        return 0, 0


def _replace_sort(things: set[str], sort: str, now: Iterable[str]) -> set[str]:
    return {*(thing for thing in things if not thing.startswith(f"{sort} ")), *now}


def _read_threads() -> list[str]:
    return [f"tid {tid}" for tid in _list("/proc/self/task")]


def _read_descriptors() -> list[str]:
    """Name the descriptors that can be a hazard: epolls, sockets, events; not files."""
    found = []
    for name in _list("/proc/self/fd"):
        try:
            mode = os.fstat(int(name)).st_mode & 0o170000
        except OSError:
            continue
        if mode in (0, 0o140000):  # an anonymous inode, a socket
            found.append(f"fd {name}")
    return found


def _read_children() -> list[str]:
    found = []
    for tid in _list("/proc/self/task"):
        try:
            descriptor = os.open(f"/proc/self/task/{tid}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            found += [f"pid {int(pid)}" for pid in os.read(descriptor, 65536).split()]
        finally:
            os.close(descriptor)
    return found


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
