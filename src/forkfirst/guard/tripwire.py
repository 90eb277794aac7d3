"""A tripwire: every later fork of this process is judged before it happens.

The mechanism is an audit hook, because nothing else can refuse: an exception in an at-fork hook is
printed and ignored, and those hooks also run for uvloop's ordinary subprocesses. The interpreter
asks audit hooks before it calls fork(2), and an exception there is raised from `os.fork()`: whoever
swallows it has still no child.

An audit hook cannot be removed, so it is added once and armed or disarmed by a variable. subprocess
and posix_spawn raise other events and are never judged: they execute a fresh program.
"""

from __future__ import annotations

import sys
from _thread import get_ident

from forkfirst.errors import UnsafeFork, UsageError
from forkfirst.guard import verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Literal

    Action = Literal["raise", "warn", "log"]

_EVENTS = frozenset({"os.fork", "os.forkpty"})
_ACTIONS = ("raise", "warn", "log")


class ForkHazardWarning(RuntimeWarning):
    """A fork happened, or was about to, that would break the child."""


class _State:
    """What the hook does; there is one hook in a process, so there is one state."""

    hooked = False
    action: Action | None = None
    allowed: Mapping[str, str] = {}


_state = _State()
# The thread that may fork, once for each entry, with the reason.
_permits: list[tuple[int, str]] = []


def tripwire(action: Action = "raise", *, allowed: Mapping[str, str] | None = None) -> None:
    """Judge every later `os.fork`, `os.forkpty`, multiprocessing fork and `pty.fork`.

    Stays armed in the children too. A second call replaces what the first one said. A fork made by
    a library in C, without CPython's `os.fork`, is not seen.

    Args:
        action: "raise" refuses with `UnsafeFork`; "warn" issues a `ForkHazardWarning`; "log" writes
            one to the logger `forkfirst.guard`.
        allowed: Dangers that are known to be harmless here, by kind, each with its reason.

    Raises:
        UsageError: *action* is none of these.

    Source: PEP 578; the events os.fork and os.forkpty.
    """
    if action not in _ACTIONS:
        message = f"cannot arm the tripwire: {action!r} is not one of {', '.join(_ACTIONS)}"
        raise UsageError(message)
    _state.action = action
    _state.allowed = dict(allowed or {})
    if not _state.hooked:
        sys.addaudithook(_hook)
        _state.hooked = True


def disarm() -> None:
    """Let every later fork happen unjudged; does nothing if the tripwire is not armed."""
    _state.action = None


class allow_fork:  # noqa: N801 - reads as what it does: with allow_fork("the child executes at once")
    """A context in which this thread may fork once without being judged.

    What is not used up ends with the block. A child finds it used up.

    Args:
        reason: Why that fork is safe; for the reader of the code.

    Raises:
        UsageError: The reason is empty.
    """

    def __init__(self, reason: str) -> None:
        if not reason.strip():
            message = "cannot allow a fork without a reason"
            raise UsageError(message, hint="say why this fork is safe")
        self._permit = (get_ident(), reason)

    def __enter__(self) -> None:
        self._permit = (get_ident(), self._permit[1])
        _permits.append(self._permit)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._permit in _permits:
            _permits.remove(self._permit)


def _hook(event: str, _: tuple[Any, ...]) -> None:
    if event in _EVENTS and _state.action is not None:
        _judge(_state.action)


def _judge(action: Action) -> None:
    ident = get_ident()
    for permit in reversed(_permits):
        if permit[0] == ident:
            _permits.remove(permit)
            return
    try:
        verdict.assert_fork_safe(_state.allowed)
    except UnsafeFork as error:
        if action == "raise":
            raise
        _tell(action, str(error))


def _tell(action: Action, text: str) -> None:
    if action == "warn":
        import warnings  # noqa: PLC0415 - only when there is something to warn of

        # 4: past this function, the judge, the hook, to the line that forks.
        warnings.warn(text, ForkHazardWarning, stacklevel=4)
    else:
        import logging  # noqa: PLC0415 - as above, and 17 ms

        logging.getLogger("forkfirst.guard").warning(text)
