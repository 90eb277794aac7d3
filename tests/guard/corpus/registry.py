"""The table of process states: how one is written down, and how it is forked.

A state is a function that brings its process into some condition and calls `fork()` there, once (or
again and again, if what it shows is a race). `fork()` first asks the guard, and then really forks.
It returns True in the child, which goes on to do what such a child is for: it uses what it
inherited, or starts afresh. A failing assertion, on either side, is the outcome "wrong".
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Outcome = Literal["harmless", "wrong", "hang", "crash"]


class State(NamedTuple):
    """One process state, and what comes of a fork in it."""

    name: str
    home: str
    """The module of the table that holds it."""
    expected: frozenset[str]
    """The outcomes that are possible; more than one where Pythons differ, or it is a race."""
    needs: str
    """The package without which the state cannot be made, or ""."""
    quick: bool
    """Whether it belongs to the subset that every run of the tests makes."""
    unseen: bool
    """Whether it is known and documented that the guard lets it pass."""
    lucky: bool
    """Whether the guard refuses although this use survives: a false refusal, and known as one."""
    play: Callable[[ForkPoint], None]

    @property
    def text(self) -> str:
        """Its one-line description."""
        return (self.play.__doc__ or "").strip().splitlines()[0]


STATES: dict[str, State] = {}
HOMES = (
    "asyncio_states",
    "descriptor_states",
    "exit_states",
    "harmless_states",
    "library_states",
    "process_states",
    "runtime_states",
    "thread_states",
)


def state(
    *expected: Outcome,
    needs: str = "",
    quick: bool = False,
    unseen: bool = False,
    lucky: bool = False,
) -> Callable[[Callable[[ForkPoint], None]], Callable[[ForkPoint], None]]:
    """Put the function into the table, under its own name."""

    def register(play: Callable[[ForkPoint], None]) -> Callable[[ForkPoint], None]:
        home = play.__module__.rpartition(".")[2]
        name = play.__name__
        assert name not in STATES, name
        STATES[name] = State(name, home, frozenset(expected), needs, quick, unseen, lucky, play)
        return play

    return register


def read_all() -> list[State]:
    """Load the whole table; no package that a state needs is imported by that."""
    for home in HOMES:
        importlib.import_module(f"guard.corpus.{home}")
    return list(STATES.values())


def load(module: str) -> Any:
    """Import what is installed only where the whole table is played."""
    return importlib.import_module(module)


class ForkPoint:
    """What a state is given: the place where it forks, and the way back to who watches."""

    def __init__(self, report: int) -> None:
        self._report = report
        self._child = 0
        self._judged = False
        self._ready = self._go = -1
        self.is_child = False

    def __call__(self) -> bool:
        """Ask the guard, fork, and return whether this is the child.

        Called again, it first waits for the child before.
        """
        self._judge()
        self.wait_for_child()
        self._ready, self._go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(self._go)
            self.is_child = True
            return True
        self._child = pid
        self.say(f"forked {pid}")
        return False

    def wait_for_parent(self) -> None:
        """In the child: wait until the parent has left the state's function."""
        assert os.read(self._ready, 1) == b""

    def say(self, line: str) -> None:
        """Tell who watches."""
        os.write(self._report, f"{line}\n".encode())

    def finish(self) -> None:
        """End this process; the parent first waits for its child."""
        if not self.is_child:
            assert self._child, "the state never forked"
            os.close(self._go)
            self.wait_for_child()
        os._exit(0)

    def _judge(self) -> None:
        if self._judged:
            return
        self._judged = True
        # Not before: a clean process is one that has not even loaded the guard.
        from forkfirst.guard.verdict import find_hazards  # noqa: PLC0415 - as above

        kinds = [f"{hazard.kind}={hazard.certainty}" for hazard in find_hazards()]
        self.say("verdict " + " ".join(dict.fromkeys(kinds)))

    def wait_for_child(self) -> None:
        """In the parent: reap the child, if there is one, and report how it ended."""
        if self._child:
            _, status = os.waitpid(self._child, 0)
            self._child = 0
            code = os.waitstatus_to_exitcode(status)
            if code:
                self.say(f"child {code}")
