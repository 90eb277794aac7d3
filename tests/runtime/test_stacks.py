"""Where a program is, read from a thread of its own, also while its loop is stuck."""

from __future__ import annotations

import asyncio
import linecache
import os
import re
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from forkfirst.control.client import ask
from forkfirst.runtime import stacks
from forkfirst.runtime.stacks import describe_asyncio_tasks, describe_threads, describe_trio_tasks
from support.child_program import run_child
from support.control_service import PATIENCE, make_path, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator


def _functions(text: str) -> list[str]:
    """Return the functions of a description, from the outermost to the newest."""
    return [line.rsplit(".", 1)[-1] for line in re.findall(r", in (\S+)$", text, re.MULTILINE)]


def _block(entered: threading.Event, leave: threading.Event) -> None:
    entered.set()
    leave.wait(PATIENCE)


@contextmanager
def running(main: Callable[[], Awaitable[object]]) -> Iterator[asyncio.AbstractEventLoop]:
    """Run *main* on a loop in another thread until the test has seen enough of it."""
    loop = asyncio.new_event_loop()

    def run() -> None:
        with (
            suppress(asyncio.CancelledError),
            asyncio.Runner(loop_factory=lambda: loop) as runner,
        ):
            runner.run(_as_coroutine(main))

    thread = threading.Thread(target=run, name="loop")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(_cancel_all, loop)
        thread.join(PATIENCE)
        assert not thread.is_alive()


async def _as_coroutine(main: Callable[[], Awaitable[object]]) -> None:
    await main()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _settle(loop: asyncio.AbstractEventLoop, turns: int = 5) -> None:
    """Return when *loop* has turned that often, so that what it can begin has begun."""
    for _ in range(turns):
        turned = threading.Event()
        loop.call_soon_threadsafe(turned.set)
        assert turned.wait(PATIENCE)


def _section(text: str, title: str) -> str:
    """Return the part of *text* whose title begins with *title*."""
    [section] = [part for part in text.split("\n\n") if part.lstrip().startswith(title)]
    return section


# -- threads ------------------------------------------------------------


def test_every_thread_is_shown_by_name_with_where_it_waits() -> None:
    """Which of forty workers hangs, and in what, is the question."""
    entered, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=_block, args=(entered, leave), name="worker-7")
    thread.start()
    assert entered.wait(PATIENCE)
    section = _section(describe_threads(), 'Thread "worker-7"')
    leave.set()
    thread.join()
    assert f"ident {thread.ident}, thread id {thread.native_id}:" in section
    assert "leave.wait(PATIENCE)" in section, "the source line is shown"
    functions = _functions(section)
    assert functions.index("run") < functions.index("_block") < functions.index("wait")


def test_the_main_thread_is_first_and_marked() -> None:
    """That is where the loop runs."""
    assert describe_threads().startswith('Thread "MainThread" (main thread), ident ')


def test_the_thread_that_asks_is_left_out() -> None:
    """It is never the one that hangs, and would only show this reading."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(describe_threads()), name="asks")
    thread.start()
    thread.join()
    assert 'Thread "asks"' not in said[0]
    assert "describe_threads" not in _functions(said[0])
    assert '"MainThread"' in said[0]


def test_of_a_deep_stack_the_newest_calls_are_shown() -> None:
    """An endless recursion is seen at its end; a megabyte of it is read by nobody."""

    def dive(depth: int) -> str:
        return describe_threads() if depth == 0 else dive(depth - 1)

    section = _section(dive(500), 'Thread "MainThread"')
    functions = _functions(section)
    assert len(functions) == stacks.MAX_DEPTH
    assert functions[-2:] == ["dive", "describe_threads"]
    assert re.search(r"^  \d+ calls before these$", section, re.MULTILINE)


# -- asyncio: what a task waits for ------------------------------------------------------------


async def _inner() -> None:
    await asyncio.sleep(PATIENCE)


async def _outer() -> None:
    await _inner()


async def _values() -> AsyncGenerator[int, None]:
    await _inner()
    yield 1


async def _iterates() -> None:
    async for _ in _values():
        pass


async def _takes_next() -> None:
    await anext(_values(), None)


async def _iterates_explicitly() -> None:
    values = _values()
    await values.asend(None)


class _Awaitable:
    """Somebody's own awaitable, with a generator as its iterator."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from _inner().__await__()


async def _awaits_own() -> None:
    await _Awaitable()


async def _in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_inner())


@pytest.mark.parametrize(
    ("main", "chain"),
    [
        (_outer, ["_outer", "_inner", "sleep"]),
        (_iterates, ["_iterates", "_values", "_inner", "sleep"]),
        (_takes_next, ["_takes_next", "_values", "_inner", "sleep"]),
        (_iterates_explicitly, ["_iterates_explicitly", "_values", "_inner", "sleep"]),
        (_awaits_own, ["_awaits_own", "__await__", "_inner", "sleep"]),
        (_in_a_group, ["_in_a_group", "__aexit__"]),
    ],
)
def test_a_task_is_followed_down_to_what_it_waits_in(
    main: Callable[[], Awaitable[object]], chain: list[str]
) -> None:
    """The task's own first line says nothing; the last one says what it waits for."""
    with running(main) as loop:
        _settle(loop)
        text = describe_asyncio_tasks(loop)
    section = next(part for part in text.split("\n\n") if chain[0] in _functions(part))
    assert ", waiting:" in section
    functions = _functions(section)
    begin = functions.index(chain[0])
    assert functions[begin : begin + len(chain)] == chain
    assert section.rstrip().endswith("waits for a Future")


def test_a_task_that_waits_for_a_task_names_it() -> None:
    """So a deadlock of two can be read off."""

    async def main() -> None:
        await asyncio.create_task(_inner(), name="the other")

    with running(main) as loop:
        _settle(loop)
        text = describe_asyncio_tasks(loop)
    assert 'waits for task "the other"' in text
    section = _section(text, 'Task "the other", waiting:')
    assert _functions(section) == ["_inner", "sleep"]
    assert "await asyncio.sleep(PATIENCE)" in section, "the source line is shown"


def test_states_are_told_apart() -> None:
    """A task that never began and one that is on its way out both look as if they waited."""
    entered, leave = threading.Event(), threading.Event()

    async def clings() -> None:
        try:
            await _inner()
        finally:
            await _inner()

    async def main() -> None:
        clinging = asyncio.create_task(clings(), name="clings")
        while not clinging.cancelling():
            await asyncio.sleep(0)
            clinging.cancel()
        await asyncio.sleep(0)
        fresh = asyncio.create_task(_inner(), name="fresh")
        woken = asyncio.get_running_loop().create_future()
        waits = asyncio.create_task(_wait_for(woken), name="woken")
        await asyncio.sleep(0)
        woken.set_result(None)
        late = asyncio.create_task(_inner(), name="late")
        _block(entered, leave)
        await asyncio.gather(fresh, waits, late, clinging)

    with running(main) as loop:
        assert entered.wait(PATIENCE)
        text = describe_asyncio_tasks(loop)
        leave.set()
    assert 'Task "late", not started:' in text
    assert 'Task "fresh", waiting:' in text
    assert 'Task "clings", waiting, being cancelled:' in text
    assert "a Future that is done: it goes on in the loop's next turn" in _section(
        text, 'Task "woken"'
    )


async def _wait_for(future: asyncio.Future[None]) -> None:
    await future


def test_a_stuck_loop_shows_the_call_that_keeps_it() -> None:
    """The await chain ends where the task last awaited; what hangs is a plain call below."""
    entered, leave = threading.Event(), threading.Event()

    async def _computes() -> None:
        _block(entered, leave)

    async def main() -> None:
        await _computes()

    with running(main) as loop:
        assert entered.wait(PATIENCE)
        section = _section(describe_asyncio_tasks(loop), 'Task "Task-')
        leave.set()
    assert ", running:" in section
    functions = _functions(section)
    begin = functions.index("main")
    assert functions[begin : begin + 4] == ["main", "_computes", "_block", "wait"]
    assert "run_forever" not in functions, "the loop's own frames belong to the thread"


def test_tasks_are_in_the_order_of_their_numbers() -> None:
    """Task-10 is younger than Task-9."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in reversed(range(12)):
                group.create_task(_inner(), name=f"t-{number}")

    with running(main) as loop:
        _settle(loop)
        text = describe_asyncio_tasks(loop)
    names = re.findall(r'^Task "(t-\d+)"', text, re.MULTILINE)
    assert names == [f"t-{number}" for number in range(12)]


def test_a_loop_without_tasks_says_so() -> None:
    """An empty answer would look like a failed one."""
    loop = asyncio.new_event_loop()
    try:
        assert describe_asyncio_tasks(loop) == "no tasks\n"
    finally:
        loop.close()


def test_reading_never_disturbs_a_loop_in_full_flight() -> None:
    """Tasks come and go a hundred thousand times a second while they are read."""
    turns = 0

    async def churn() -> None:
        nonlocal turns
        while True:
            await asyncio.gather(*[asyncio.sleep(0) for _ in range(20)])
            turns += 1

    with running(churn) as loop:
        _settle(loop)
        before = turns
        for _ in range(100):
            text = describe_asyncio_tasks(loop)
            assert "Task" in text
            describe_threads()
        _settle(loop)
        assert turns > before


def test_nothing_of_the_program_is_run() -> None:
    """A __repr__ that hangs, or a __getattr__ that counts, must not be met by a mere look."""

    class Hostile:
        def __iter__(self) -> Hostile:
            return self

        def __next__(self) -> None:
            return None  # a bare yield, to the loop

        def __getattr__(self, name: str) -> Any:
            touched.append(name)
            raise AttributeError(name)

        def __repr__(self) -> str:
            touched.append("repr")
            return "hostile"

    class AwaitsHostile:
        def __await__(self) -> Any:
            return hostile

    touched: list[str] = []
    entered, leave = threading.Event(), threading.Event()
    hostile = Hostile()

    async def waits() -> None:
        await AwaitsHostile()

    async def main() -> None:
        waiting = asyncio.create_task(waits(), name="hostile")
        await asyncio.sleep(0)
        touched.clear()
        _block(entered, leave)
        waiting.cancel()

    with running(main) as loop:
        assert entered.wait(PATIENCE)
        text = describe_asyncio_tasks(loop)
        seen = list(touched)
        leave.set()
    assert seen == []
    assert "waits in an object of test_stacks.Hostile" in text.replace("runtime.", "").replace(
        "tests.", ""
    )


def test_source_files_are_forgotten_and_the_programs_own_are_not() -> None:
    """A service that was asked once must not stay megabytes larger, nor lose generated code."""
    linecache.clearcache()
    linecache.cache["<generated>"] = (1, None, ["x\n"], "<generated>")
    assert "File" in describe_threads()
    assert set(linecache.cache) == {"<generated>"}
    linecache.clearcache()


def test_what_is_too_much_is_counted() -> None:
    """An answer has a limit, and a service with a million tasks is one to look at."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(stacks.MAX_TASKS + 9):
                group.create_task(_inner())

    with running(main) as loop:
        _settle(loop)
        text = describe_asyncio_tasks(loop)
    assert len(text) < stacks.MAX_TEXT * 1.1
    assert text.endswith("and 10 tasks more\n")


# -- trio ------------------------------------------------------------


async def _trio_inner() -> None:
    await trio.sleep_forever()


async def _trio_values() -> AsyncGenerator[int, None]:
    await _trio_inner()
    yield 1


async def _trio_iterates() -> None:
    async for _ in _trio_values():
        pass


async def _trio_subtree() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_trio_iterates)
        nursery.start_soon(_trio_inner)


def _describe_trio(main: Callable[[], Awaitable[object]]) -> str:
    """Return what another thread reads of *main*, once all of it waits."""
    said: list[str] = []

    async def watch() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_trio_as_coroutine, main)
            await trio.testing.wait_all_tasks_blocked()
            root = trio.lowlevel.current_root_task()
            reads = threading.Thread(target=lambda: said.append(describe_trio_tasks(root)))
            reads.start()
            reads.join()  # so that trio is as stuck as can be
            nursery.cancel_scope.cancel()

    trio.run(watch)
    return said[0]


async def _trio_as_coroutine(main: Callable[[], Awaitable[object]]) -> None:
    await main()


def test_trio_tasks_are_a_tree() -> None:
    """In trio every task has a parent, and that is how its programs are read."""
    text = _describe_trio(_trio_subtree)
    assert text.startswith('Task "<init>", waiting:\n')
    depths = {
        name.rsplit(".", 1)[-1]: len(indent) // 4
        for indent, name in re.findall(r'^( *)Task "([^"]+)"', text, re.MULTILINE)
    }
    assert depths["watch"] == 1
    assert depths["_trio_as_coroutine"] == 2
    assert depths["_trio_iterates"] == depths["_trio_inner"] == 3


def test_a_trio_task_is_followed_down_to_what_it_waits_in() -> None:
    """As with asyncio: through async generators too."""
    text = _describe_trio(_trio_subtree)
    [section] = [part for part in text.split("\n\n") if '_trio_iterates"' in part]
    chain = ["_trio_iterates", "_trio_values", "_trio_inner", "sleep_forever"]
    assert _functions(section)[:4] == chain
    assert "await trio.sleep_forever()" in section


def test_a_trio_task_that_keeps_the_loop_is_shown_by_its_calls() -> None:
    """The one that runs has no chain of awaits to read."""
    text = _describe_trio(_trio_subtree)
    [section] = [part for part in text.split("\n\n") if ", running:" in part]
    functions = _functions(section)
    assert functions[functions.index("watch") + 1] in ("start", "join")


def test_before_trio_runs_there_are_no_tasks() -> None:
    """Readiness may time out before the loop began."""
    assert describe_trio_tasks(None) == "no tasks\n"


# -- the whole way ------------------------------------------------------------


def test_a_stuck_loop_is_read_through_the_control_socket() -> None:
    """What it is for: the loop is stuck in the main thread, and somebody asks where."""
    entered, leave = threading.Event(), threading.Event()
    said: list[dict[str, Any]] = []

    def watch(path: str) -> None:
        assert entered.wait(PATIENCE)
        try:
            said.append(ask(path, "stacks", seconds=PATIENCE))
        finally:
            leave.set()

    async def main() -> None:
        _block(entered, leave)

    def answer(_: Any) -> dict[str, Any]:
        return {"threads": describe_threads(), "tasks": describe_asyncio_tasks(loop)}

    with serving({"stacks": answer}) as path:
        loop = asyncio.new_event_loop()
        watcher = threading.Thread(target=watch, args=(path,))
        watcher.start()
        loop.run_until_complete(main())
        loop.close()
        watcher.join()
    main_thread = _section(said[0]["threads"], 'Thread "MainThread"')
    assert _functions(main_thread)[-3:-1] == ["_block", "wait"]
    assert "forkfirst-control" not in said[0]["threads"]
    assert _functions(said[0]["tasks"])[:2] == ["main", "_block"]


_GROWTH = """
import asyncio, json, os, sys, threading
from forkfirst.control.client import ask
from forkfirst.control.server import Server, open_socket
from forkfirst.runtime.stacks import describe_threads

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

path = sys.argv[1]
answers = {"stacks": lambda request: {"threads": describe_threads()}}
server = Server(open_socket(path), answers, allowed_uids=frozenset({os.getuid()}))
server.start()
for _ in range(5):
    ask(path, "stacks", seconds=20)
before = resident()
for _ in range(100):
    ask(path, "stacks", seconds=20)
grown = resident() - before
server.stop()
print(json.dumps(grown))
"""


def test_asking_a_hundred_times_leaves_no_trace() -> None:
    """A frame that is kept keeps every local variable of the program."""
    with make_path() as path:
        assert run_child(_GROWTH, path) < 1_000_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="uvloop is for Unix")
def test_a_task_on_uvloop_is_read_alike() -> None:
    """Its futures are asyncio's."""
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()

    async def main() -> str:
        waits = loop.create_task(_outer(), name="waits")
        await asyncio.sleep(0)
        text = describe_asyncio_tasks(loop)
        waits.cancel()
        return text

    try:
        section = _section(loop.run_until_complete(main()), 'Task "waits"')
    finally:
        loop.close()
    assert _functions(section) == ["_outer", "_inner", "sleep"]
    assert section.rstrip().endswith("waits for a Future")
