"""How clients are left: websockets told to go away, kept connections told to close.

A connection that is closed while it is quiet cuts off a request that may be on its way, and the
client cannot know. So it stays open for a moment in which each answer says `Connection: close`.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from forkfirst.runtime.context import Context
    from forkfirst.runtime.serve.lifespan import Message, Receive, Send

LINGER_SECONDS = 1.0
"""How long a quiet connection stays open for one more request when the service stops."""

LAST = (b"connection", b"close")
"""What tells a client of HTTP/1 that the connection ends with this answer."""

SERVICE_RESTART = 1012
"""The status of a websocket's end: the client may come back. Source: RFC 6455, IANA's registry."""

LOOK_SECONDS = 0.02
"""How often it is looked whether the last connection has gone: a server tells nobody."""
_MOST_OF_IT = 0.9
_CLEAN_UP_SECONDS = 1.0


def begin_drain(context: Context) -> Callable[[], float]:
    """Return what tells how many seconds are left for clients, of the grace period from now on.

    The last of them is not theirs, but the lifespan's to end in.
    """
    seconds = max(context.grace_seconds * _MOST_OF_IT, context.grace_seconds - _CLEAN_UP_SECONDS)
    until = monotonic() + seconds
    return lambda: max(0.0, until - monotonic())


class Websockets:
    """The open websockets of an application."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self._application = application
        self._open: set[_Websocket] = set()
        self._leaving = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one websocket. Where *receive* can be `held`, it is while the goodbye is said."""
        one = _Websocket(send, getattr(receive, "held", nullcontext))
        self._open.add(one)
        try:
            if self._leaving:
                one.leave_when_accepted = True
            await self._application(scope, receive, one.send)
        finally:
            self._open.discard(one)

    def leave(self) -> list[Awaitable[None]]:
        """Return what tells each client to go away, to be awaited all at once."""
        self._leaving = True
        return [one.leave() for one in self._open]


class _Websocket:
    def __init__(self, send: Send, hold: Callable[[], Any]) -> None:
        self._send = send
        self._hold = hold
        self._accepted = False
        self._left = False
        self.leave_when_accepted = False

    async def send(self, message: Message) -> None:
        if self._left:
            return  # to a client that was told to go away
        await self._send(message)
        if message["type"] == "websocket.accept":
            self._accepted = True
            if self.leave_when_accepted:
                await self.leave()

    async def leave(self) -> None:
        if not self._accepted:
            self.leave_when_accepted = True
        elif not self._left:
            self._left = True
            with suppress(Exception):  # the client has gone, and each server says so its own way
                async with self._hold():
                    await self._send({"type": "websocket.close", "code": SERVICE_RESTART})


async def linger(leaving: list[Awaitable[None]], is_connected: Callable[[], object]) -> None:
    """Await *leaving*, then wait until nobody *is_connected*, both within `LINGER_SECONDS`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LINGER_SECONDS
    tasks = [asyncio.ensure_future(one) for one in leaving]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=LINGER_SECONDS)
        for one in late:
            one.cancel()
    while is_connected() and loop.time() < until:  # noqa: ASYNC110 - no server tells
        await asyncio.sleep(LOOK_SECONDS)
