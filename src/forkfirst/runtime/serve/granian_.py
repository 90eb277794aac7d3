"""An ASGI application served by granian, embedded, on asyncio or uvloop.

Its accepting and parsing are in Rust, in threads of their own; the application is in this loop. A
granian has one listener, so there is one for each.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import socket
from contextlib import asynccontextmanager, suppress

import granian
from granian.asgi import LifespanProtocol
from granian.constants import Interfaces
from granian.errors import ConfigurationError
from granian.net import SocketHolder
from granian.server.embed import Server

from forkfirst.runtime.serve import asgi, parting
from forkfirst.runtime.serve import options as options_
from forkfirst.runtime.serve.listeners import BACKLOG, list_streams
from forkfirst.unix import stand_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any

    from forkfirst.runtime.context import Context
    from forkfirst.runtime.serve.lifespan import Message, Receive, Send

TAKES_WSGI = False  # not when it is embedded

_OWNED = {
    **dict.fromkeys(("address", "port", "uds"), "give --listen"),
    **dict.fromkeys(("target", "factory"), "name the application as module:name or module:make()"),
    "workers": "give --workers",
    "loop": "give --runtime",
    "reload": "give forkfirst run --watch",
    **dict.fromkeys(
        ("http1_settings", "http2_settings", "log_dictconfig"), "it is no text, and has no flag"
    ),
}
_DESCRIPTORS = "/proc/self/fd"
_TASK = "future_watcher"
"""What granian calls the coroutine of a request, or of a websocket."""


def make_main(
    application: Callable[..., Awaitable[None]],
    options: dict[str, Any],
    *,
    is_wsgi: bool,  # noqa: ARG001 - the same for each server
) -> Callable[[Context], Awaitable[None]]:
    """Return the program that serves *application* on the service's listeners.

    It raises what the application's lifespan raised.

    Raises:
        ConfigError: The options are not granian's.
    """
    served = asgi.Application(application, options)
    known = inspect.signature(Server).parameters.items()
    annotations = {name: one.annotation for name, one in known if name not in _OWNED}
    given = {"backlog": BACKLOG, **options_.read("granian", options, annotations, _OWNED)}
    try:
        Server(application, interface=Interfaces.ASGINL, **given)
    except (OSError, ValueError, ConfigurationError) as error:
        raise options_.refuse(error, "granian") from error
    logging.getLogger("_granian").addFilter(_is_no_reservation)

    async def main(context: Context) -> None:
        await _serve(served, given, context)

    return main


async def _serve(served: asgi.Application, options: dict[str, Any], context: Context) -> None:
    served.count = context.served
    sockets = list_streams(context, "granian")
    lifespan: Any = LifespanProtocol(served)
    told = _Told(served, lifespan.state)
    accepting = _Accepting(told, sockets, options)
    await lifespan.startup()
    served.lifespan.check()
    accepting.begin()
    context.pause_accepting = accepting.in_loop(accepting.pause)
    context.resume_accepting = accepting.in_loop(accepting.resume)
    context.end_accepting = context.pause_accepting
    context.ready(f"served by granian {granian.__version__}")
    await context.wait_stopping()
    left = parting.begin_drain(context)
    accepting.pause()
    told.closing = True
    # Which connections it has, granian does not tell: so each has its moment.
    await parting.linger(served.websockets.leave(), lambda: True)
    await accepting.end(left())
    await lifespan.shutdown()
    served.lifespan.check()


class _Told:
    """The application, its answers, and what they say when the service stops."""

    def __init__(self, served: asgi.Application, state: dict[str, Any]) -> None:
        self.closing = False
        self._served = served
        self._state = state

    def __call__(self, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        scope["state"] = self._state.copy()
        if scope["type"] == "websocket":
            return self._served(scope, _Receive(receive), send)
        if self.closing and scope["type"] == "http" and scope["http_version"][0] == "1":
            return self._served(scope, receive, _make_last(send))
        return self._served(scope, receive, send)


def _make_last(send: Send) -> Send:
    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), parting.LAST]}
        await send(message)

    return send_last


class _Receive:
    """What a websocket receives. granian says no goodbye while somebody waits for a message."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._waiting: asyncio.Future[Message] | None = None
        self._over: asyncio.Event | None = None

    async def __call__(self) -> Message:
        """Wait for the next message; once held, it is the end."""
        if self._over is None:
            self._waiting = asyncio.ensure_future(self._receive())
            try:
                return await self._waiting
            except asyncio.CancelledError:
                if self._over is None:
                    raise
            finally:
                self._waiting = None
        await self._over.wait()
        return {"type": "websocket.disconnect", "code": parting.SERVICE_RESTART}

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Receive nothing within this, and only the end after it."""
        self._over = asyncio.Event()
        if self._waiting is not None:
            self._waiting.cancel()
        try:
            yield
        finally:
            self._over.set()


class _Server(Server):  # type: ignore[misc]  # its types are known only where it is installed
    """granian on a listener that is there already; by itself it takes an address and binds it."""

    def __init__(self, listener: socket.socket, told: _Told, options: dict[str, Any]) -> None:
        super().__init__(told, interface=Interfaces.ASGINL, **options)
        self._listener = listener
        self._not_its_own = set(_list_copies(listener))
        self._copies: list[int] = []

    @property
    def _bind_addr_fmt(self) -> str:
        name: Any = self._listener.getsockname()
        return name if isinstance(name, str) else f"{name[0]}:{name[1]}"

    def _init_shared_socket(self) -> None:
        is_unix = self._listener.family == socket.AF_UNIX
        # A copy: it closes what it has when it ends.
        self._shd = SocketHolder(os.dup(self._listener.fileno()), is_unix, self.backlog)

    def turn(self, *, away: bool) -> None:
        """Put a socket that nobody can reach in the place of its listener, or that back.

        granian has no other way not to accept but its end, which cuts off whoever was accepted and
        has not sent a request yet. Its epoll goes on reporting the listener, once a connection:
        its threads try, find none, and sleep on. (Not `stand_in.replace_listeners`: that needs an
        epoll which knows what it watches by its number, and Tokio's does not.)
        """
        self._copies = self._copies or [
            fd for fd in _list_copies(self._listener) if fd not in self._not_its_own
        ]
        with stand_in.make_unreachable() as other:
            os.set_blocking(other.fileno(), False)
            behind = other.fileno() if away else self._listener.fileno()
            for fd in self._copies:
                os.dup2(behind, fd, inheritable=False)


def _list_copies(listener: socket.socket) -> list[int]:
    """Return the descriptors of this process that are *listener*; none where there is no /proc."""
    link = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
    found = []
    for name in os.listdir(_DESCRIPTORS) if os.path.isdir(_DESCRIPTORS) else ():
        with suppress(OSError):  # it is that of the list itself, or another thread's
            if os.readlink(f"{_DESCRIPTORS}/{name}") == link:
                found.append(int(name))
    return found


class _Accepting:
    """The granians of a process, one a listener."""

    def __init__(self, told: _Told, sockets: list[socket.socket], options: dict[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._servers = [_Server(one, told, options) for one in sockets]
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Accept connections."""
        self._tasks = {self._loop.create_task(one.serve()) for one in self._servers}

    def pause(self) -> None:
        """Accept no more; connections live on."""
        for one in self._servers:
            one.turn(away=True)

    def resume(self) -> None:
        """Accept again."""
        for one in self._servers:
            one.turn(away=False)

    async def end(self, seconds: float) -> None:
        """End every connection that has had the answer it waits for; the others after *seconds*."""
        for one in self._servers:
            one.stop()
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        if late:
            for request in asyncio.all_tasks():
                if _TASK in repr(request.get_coro()):
                    request.cancel()
            await asyncio.wait(late)

    def in_loop(self, act: Callable[[], object]) -> Callable[[], object]:
        """Return what does *act* in the loop, from any thread or signal handler."""

        def do() -> None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(act)

        return do


def _is_no_reservation(record: logging.LogRecord) -> bool:
    """Hide that embedding is experimental: that is for us to know, in a test of each version."""
    return "experimental" not in record.getMessage()
