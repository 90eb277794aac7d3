"""An `aiohttp.web.Application`, served by aiohttp itself, on asyncio or uvloop."""

from __future__ import annotations

import asyncio
import logging
import ssl
import weakref

import aiohttp
from aiohttp import web

from forkfirst import errors
from forkfirst.runtime.serve import options as options_
from forkfirst.runtime.serve import parting
from forkfirst.runtime.serve.listeners import BACKLOG, list_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from forkfirst.runtime.context import Context

_KNOWN = {
    "ssl_certfile": "str",
    "ssl_keyfile": "str",
    "ssl_keyfile_password": "str",
    "access_log": "bool",
    "access_log_format": "str",
    "backlog": "int",
    "keepalive_timeout": "float",
    "lingering_time": "float",
    "max_line_size": "int",
    "max_field_size": "int",
    "handler_cancellation": "bool",
    "auto_decompress": "bool",
}
"""What `AppRunner` takes that a text can say, and the certificate."""
_OWNED = {
    **dict.fromkeys(("host", "port", "path", "sock"), "give --listen"),
    "shutdown_timeout": "give --grace-period",
    "handle_signals": "they are the service's",
}


def make_main(application: Any, options: dict[str, Any]) -> Callable[[Context], Awaitable[None]]:
    """Return the program that serves *application* on the service's listeners.

    *application* may also be a coroutine that makes it, as aiohttp has it.

    Raises:
        ConfigError: It is no aiohttp application, or the options are not its server's.
    """
    if not asyncio.iscoroutine(application):
        _check_kind(application)
    given = options_.read("aiohttp", options, _KNOWN, _OWNED)
    tls = _make_tls(given)

    async def main(context: Context) -> None:
        made = await application if asyncio.iscoroutine(application) else application
        _check_kind(made)
        await _serve(made, tls, given, context)

    return main


async def _serve(
    application: web.Application,
    tls: ssl.SSLContext | None,
    options: dict[str, Any],
    context: Context,
) -> None:
    backlog = options.pop("backlog", BACKLOG)
    logger = logging.getLogger("aiohttp.access") if options.pop("access_log", False) else None
    clients = _Clients(context)
    application.on_response_prepare.append(clients.prepare)
    runner = web.AppRunner(application, access_log=logger, **options)
    try:
        await runner.setup()
        for one in list_streams(context, "aiohttp"):
            await web.SockSite(runner, one, ssl_context=tls, backlog=backlog).start()
        context.ready(f"served by aiohttp {aiohttp.__version__}")
        await context.wait_stopping()
        left = parting.begin_drain(context)
        for site in runner.sites:
            await site.stop()
        server = runner.server
        await parting.linger(clients.leave(), lambda: server is not None and server.connections)
        # In place of its own, which begins to count after that.
        runner._shutdown_timeout = left()  # noqa: SLF001 - nothing public sets it so late
    finally:
        await runner.cleanup()


def _check_kind(application: object) -> None:
    if not isinstance(application, web.Application):
        message = f"aiohttp serves an aiohttp.web.Application, not a {type(application).__name__}"
        raise errors.ConfigError(message, hint="for an ASGI application give --serve uvicorn")


class _Clients:
    """Who is answered, and what they are told when the service stops."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._websockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    async def prepare(self, _: web.Request, response: web.StreamResponse) -> None:
        """Look at an answer whose headers are about to be sent."""
        if isinstance(response, web.WebSocketResponse):
            self._websockets.add(response)
            return
        self._context.served()
        if self._context.stopping:
            response.force_close()
            response.headers["Connection"] = "close"

    def leave(self) -> list[Any]:
        """Return what tells each websocket to go away."""
        return [one.close(code=parting.SERVICE_RESTART) for one in self._websockets]


def _make_tls(given: dict[str, Any]) -> ssl.SSLContext | None:
    certificate, key = given.pop("ssl_certfile", None), given.pop("ssl_keyfile", None)
    password = given.pop("ssl_keyfile_password", None)
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password)
    except (OSError, ValueError) as error:
        raise options_.refuse(error, "aiohttp") from error
    return context
