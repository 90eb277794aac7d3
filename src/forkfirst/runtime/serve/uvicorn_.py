"""An ASGI application served by uvicorn, on asyncio or uvloop.

The parts of uvicorn's `Server` (to start, to tick, to shut down) are called here one by one, and
not its `serve`, which takes the signals and wakes ten times a second.
"""

from __future__ import annotations

import asyncio
import inspect

import uvicorn

from forkfirst.runtime.serve import asgi, parting
from forkfirst.runtime.serve import options as options_
from forkfirst.runtime.serve.listeners import BACKLOG, list_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from forkfirst.runtime.context import Context

TAKES_WSGI = False
"""It has an adapter, and says itself that another, a2wsgi, is the one to use."""

_PAUSE_SECONDS = 0.1  # in uvicorn's shutdown, before it begins to count
_TICK_SECONDS = 1.0  # the date of an answer has seconds
_FUNCTION = "it takes a function, which no text is"
_OWNED = {
    **dict.fromkeys(("app", "factory"), "name the application as module:name or module:make()"),
    **dict.fromkeys(("host", "port", "uds", "fd"), "give --listen"),
    **dict.fromkeys(
        ("reload", "reload_dirs", "reload_delay", "reload_includes", "reload_excludes"),
        "give forkfirst run --watch",
    ),
    "workers": "give --workers",
    "loop": "give --runtime",
    "timeout_graceful_shutdown": "give --grace-period",
    "timeout_worker_healthcheck": "give --hang-timeout",
    **dict.fromkeys(("callback_notify", "timeout_notify", "ssl_context_factory"), _FUNCTION),
}


def make_main(
    application: Callable[..., Awaitable[None]],
    options: dict[str, Any],
    *,
    is_wsgi: bool,  # noqa: ARG001 - the same for each server
) -> Callable[[Context], Awaitable[None]]:
    """Return the program that serves *application* on the service's listeners.

    It raises what the application's lifespan raised.

    Raises:
        ConfigError: The options are not uvicorn's.
    """
    served = asgi.Application(application, options)
    known = inspect.signature(uvicorn.Config).parameters.items()
    annotations = {name: one.annotation for name, one in known if name not in _OWNED}
    given = options_.read("uvicorn", options, annotations, _OWNED)
    given = {"backlog": BACKLOG, **given, "interface": "asgi3", "lifespan": "on"}
    try:
        config = uvicorn.Config(served, **given)
        config.load()
    except (OSError, ValueError, ImportError) as error:
        raise options_.refuse(error, "uvicorn") from error

    async def main(context: Context) -> None:
        await _serve(served, config, context)

    return main


async def _serve(served: asgi.Application, config: uvicorn.Config, context: Context) -> None:
    served.count = context.served
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    exit_: SystemExit | None = None
    try:
        await server.startup(sockets=list_streams(context, "uvicorn"))
    except SystemExit as error:  # what uvicorn makes of every failure
        exit_ = error
    served.lifespan.check()
    if exit_ is not None:
        raise exit_
    context.ready(f"served by uvicorn {uvicorn.__version__}")
    headers = await _tick_until_stopping(server, context)
    left = parting.begin_drain(context)
    for one in server.servers:
        one.close()
    if not getattr(config, "http2", False):  # which has no such header, and says goodbye by itself
        headers.append(parting.LAST)
    await parting.linger(served.websockets.leave(), lambda: server.server_state.connections)
    # It is waited for, and may be a part of a second, whatever the annotation says.
    config.timeout_graceful_shutdown = max(0.0, left() - _PAUSE_SECONDS)
    await server.shutdown()
    served.lifespan.check()


async def _tick_until_stopping(
    server: uvicorn.Server, context: Context
) -> list[tuple[bytes, bytes]]:
    """Keep the time until the service is to stop, or uvicorn wants to.

    Returns the headers of every answer: one list, so that an answer whose request came long ago
    has what is added to it later.
    """
    headers: list[tuple[bytes, bytes]] = []
    stopping = asyncio.ensure_future(context.wait_stopping())
    try:
        while not stopping.done() and not await server.on_tick(0):
            headers[:] = server.server_state.default_headers
            server.server_state.default_headers = headers
            await asyncio.wait([stopping], timeout=_TICK_SECONDS)
    finally:
        stopping.cancel()
    return headers
