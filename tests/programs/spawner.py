"""A program with a runtime, threads and a trap, which starts services: each mode prints its facts.

Whatever forks in this process ends it at once, so nothing here can be said after a fork.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import trio

import forkfirst
from forkfirst import Service

HERE = Path(__file__).parent
SERVE = f"{HERE / 'daemons.py'}:serve"
UNIX = f"web=unix:{Path.cwd() / 'web'}"
GATE = Path(os.environ.get("TELL", "/none")).with_name("gate")  # a daemon is in another directory


def tell(text: str) -> None:
    with open(os.environ["TELL"], "w", encoding="utf-8") as fifo:  # noqa: PTH123 - as a program would
        fifo.write(f"{text}\n")


# -- programs to be started ------------------------------------------------------------------------


async def hang(context: Any) -> None:  # noqa: ARG001 - who takes it must say that it is ready
    """Never be ready."""
    tell("hanging")
    await asyncio.Event().wait()


async def fail() -> None:
    """Fail as a program does."""
    sys.stdout.write("this is why\n")
    message = "no"
    raise ValueError(message)


async def wait_for_gate(context: Any) -> None:
    """Be ready as soon as somebody opens the gate, which only the spawner's loop does."""
    tell("waiting")
    await asyncio.to_thread(GATE.read_bytes)
    context.ready()
    await context.wait_stopping()


# -- what makes a fork unsafe, all of it alive -----------------------------------------------------


def set_the_trap() -> None:
    """End this process where it forks: an audit hook hears of it before the kernel does."""

    def hear(event: str, _: Any) -> None:
        if event in {"os.fork", "os.forkpty"}:
            os.write(2, b"forked\n")
            os._exit(99)

    sys.addaudithook(hear)
    os.register_at_fork(before=lambda: os._exit(98))


def live_dangerously() -> None:
    """Have threads, inheritable descriptors, a blocked and an ignored signal."""
    go = threading.Event()
    for _ in range(3):
        threading.Thread(target=go.wait, daemon=True).start()
    for end in os.pipe():
        os.set_inheritable(end, True)  # noqa: FBT003 - its only argument
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def read_own() -> dict[str, Any]:
    """Return what a start must leave as it was."""
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names are wanted
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "handlers": [id(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "directory": str(Path.cwd()),
        "umask": os.umask(0o22),
        "children": _has_children(),
    }


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def describe(started: forkfirst.Started) -> dict[str, Any]:
    return {name: getattr(started, name) for name in type(started).__fields__}


def try_to(start: Any, *arguments: Any) -> dict[str, Any]:
    try:
        return describe(start(*arguments))
    except forkfirst.ForkfirstError as error:
        return _describe_error(error)


def _describe_error(error: forkfirst.ForkfirstError) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "text": str(error),
        "hint": error.hint,
        "status": error.exit_status,
        "notes": getattr(error, "__notes__", []),
        "pid": getattr(error, "pid", 0),
    }


# -- modes -----------------------------------------------------------------------------------------


def spawn_blocking() -> dict[str, Any]:
    before = read_own()
    started = try_to(forkfirst.spawn, Service(program=SERVE, name="app", listen=(UNIX,)))
    return {**started, "changed": _compare(before, read_own())}


def spawn_on_asyncio() -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        before = read_own()
        started = await forkfirst.spawn_async(Service(program=SERVE, name="app", listen=(UNIX,)))
        return {**describe(started), "changed": _compare(before, read_own())}

    return asyncio.run(main())


def spawn_on_trio() -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        before = read_own()
        started = await forkfirst.spawn_async(Service(program=SERVE, name="app", listen=(UNIX,)))
        return {**describe(started), "changed": _compare(before, read_own())}

    return trio.run(main)


def _compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def open_the_gate_on_asyncio() -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async def open_gate() -> None:
            await asyncio.to_thread(GATE.write_bytes, b"\n")

        service = Service(program=wait_for_gate, name="app", ready_timeout=30)
        task = asyncio.create_task(forkfirst.spawn_async(service))
        await open_gate()
        return describe(await task)

    os.mkfifo(GATE)
    return asyncio.run(main())


def block_the_loop() -> dict[str, Any]:
    """Do it wrongly: the blocking call in a coroutine, so that nobody opens the gate."""

    async def main() -> dict[str, Any]:
        task = asyncio.create_task(asyncio.to_thread(GATE.write_bytes, b"\n"))
        service = Service(program=wait_for_gate, name="app", ready_timeout=0.5)
        try:
            return try_to(forkfirst.spawn, service)
        finally:
            task.cancel()
            os.close(os.open(GATE, os.O_RDWR | os.O_NONBLOCK))

    os.mkfifo(GATE)
    return asyncio.run(main())


def cancel_on_asyncio() -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        task = asyncio.create_task(forkfirst.spawn_async(Service(program=hang, name="app")))
        await asyncio.to_thread(Path("cancel").read_bytes)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return {"cancelled": True, "children": _has_children()}
        return {}

    return asyncio.run(main())


def cancel_on_trio() -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forkfirst.spawn_async, Service(program=hang, name="app"))
            await trio.to_thread.run_sync(Path("cancel").read_bytes)
            nursery.cancel_scope.cancel()
        return {
            "cancelled": nursery.cancel_scope.cancelled_caught,
            "children": _has_children(),
        }

    return trio.run(main)


def interrupt() -> dict[str, Any]:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        forkfirst.spawn(Service(program=hang, name="app"))
    except KeyboardInterrupt:
        return {"interrupted": True, "children": _has_children()}
    return {}


def spawn_failing() -> dict[str, Any]:
    return try_to(forkfirst.spawn, Service(program=fail, name="app"))


def spawn_twice() -> dict[str, Any]:
    service = Service(program=SERVE, name="app")
    first = try_to(forkfirst.spawn, service)
    return {"first": first, "second": try_to(forkfirst.spawn, service)}


def spawn_slowly() -> dict[str, Any]:
    return try_to(forkfirst.spawn, Service(program=wait_for_gate, name="app"))


def spawn_from_own_path() -> dict[str, Any]:
    sys.path.insert(0, "elsewhere")
    import hidden_program  # type: ignore[import-not-found] # noqa: PLC0415 - found only since then

    return try_to(forkfirst.spawn, Service(program=hidden_program.main, name="app"))


def refuse_nameless() -> dict[str, Any]:
    async def local() -> None:
        return None

    class Callable:
        async def __call__(self) -> None:
            return None

    candidates: dict[str, Any] = {"lambda": lambda: None, "local": local, "object": Callable()}
    return {
        name: try_to(forkfirst.spawn, Service(program=program, name=name))
        for name, program in candidates.items()
    }


def main() -> None:
    set_the_trap()
    live_dangerously()
    sys.stdout.write(json.dumps(globals()[sys.argv[1]]()))


if __name__ == "__main__":
    main()
