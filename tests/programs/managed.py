"""A service that a manager runs by `forkfirst run`; what it is asked on a connection, it does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

_answering: set[Any] = set()


async def serve(context: Any) -> None:
    """Answer on each listener until stopped; count the starts in the manager's store."""
    count = int(context.stored_state("count") or 0) + 1
    context.store_state("count", str(count).encode())
    servers = [
        await asyncio.start_server(_answerer(context, name, count), sock=one)
        for name, sockets in context.listeners.items()
        for one in sockets
        if one.type == 1  # the others are only told of
    ]
    reloads = asyncio.create_task(_count_reloads(context))
    await asyncio.sleep(0)
    context.ready(f"start {count}")
    await context.wait_stopping()
    for server in servers:
        server.close()
    reloads.cancel()
    await asyncio.gather(*_answering, return_exceptions=True)  # the drain: they were accepted


async def _count_reloads(context: Any) -> None:
    count = 0
    while True:
        await context.wait_reload()
        count += 1
        context.status(f"reloads: {count}")


def _answerer(context: Any, name: str, count: int) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        _answering.add(task)
        try:
            await answer_one(reader, writer)
        finally:
            _answering.discard(task)

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wish = (await reader.readline()).decode().strip()
        writer.write(json.dumps(_describe(context, name, count)).encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        if wish == "block":
            block_here()
        elif wish == "be unwell":
            context.healthy = lambda: "the database is gone"
        elif wish == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)

    return answer


def block_here() -> None:
    time.sleep(1000)


def _describe(context: Any, name: str, count: int) -> dict[str, Any]:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    variables = ("LISTEN_", "NOTIFY_", "WATCHDOG_")
    return {
        "name": name,
        "count": count,
        "pid": os.getpid(),
        "listeners": {
            name: [f"{one.family.name} {one.type.name}" for one in sockets]
            for name, sockets in context.listeners.items()
        },
        "left": sorted(each for each in os.environ if each.startswith(variables)),
        "state_directory": str(context.state_directory),
        "credentials": str(context.credentials_directory),
        "uids": next(line.split()[1:] for line in status if line.startswith("Uid")),
        "capabilities": next(line.split()[1] for line in status if line.startswith("CapEff")),
    }


async def tell(context: Any) -> None:
    """Tell on stderr what was passed."""
    listeners = context.listeners.items()
    told = {
        name: [f"{one.family.name} {one.type.name}" for one in sockets]
        for name, sockets in listeners
    }
    sys.stderr.write(json.dumps(told) + "\n")
    context.ready()


async def converse(context: Any) -> None:
    """Serve the one connection that this process was started for."""
    reader, writer = await asyncio.open_connection(sock=context.connection)
    sys.stdout.write("not for the client\n")
    await _answerer(context, "connection", 1)(reader, writer)


async def start_slowly(context: Any) -> None:
    """Take longer than the unit allows, and drain for as long."""
    await asyncio.sleep(float(os.environ["SLOWLY"]))
    context.ready()
    await context.wait_stopping()
    await asyncio.sleep(float(os.environ["SLOWLY"]))


async def warn(context: Any) -> None:
    """Log without a configuration, and by the handler that is offered."""
    logging.getLogger("app").warning("from an unconfigured logger")
    logging.getLogger("app").info("too small to be seen")
    handler = context.journal_handler()
    if handler is not None:
        logging.getLogger("own").addHandler(handler)
        logging.getLogger("own").error("by the handler", extra={"REQUEST": "17"})
    sys.stderr.write("printed\n")


async def fail(_context: Any) -> None:
    """Fail with an errno."""
    os.stat("/no/such/file")  # noqa: PTH116 - for its error
