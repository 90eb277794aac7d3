"""What an application makes of its lifespan, seen by whoever has to say that it is ready.

Each server speaks the protocol itself; what they think of a failure differs (to go on without, to
print a line, to exit with 3). Here it is one thing: an application that took `lifespan.startup` and
then raised, or said `startup.failed`, has failed. One that refuses the scope has no lifespan.

Source: the ASGI lifespan protocol, version 2.0.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any, TypeAlias

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]


class LifespanFailedError(Exception):
    """The application said that it could not start, or not stop, and raised nothing."""


class _NotItsLifespanError(Exception):
    """The application took the scope for that of a request."""


class Lifespan:
    """The lifespan of one application.

    Attributes:
        failure: What it failed by, or None.
    """

    def __init__(self, application: Callable[..., Awaitable[None]], mode: str) -> None:
        self.failure: BaseException | None = None
        self._application = application
        self._mode = mode
        self._taken = False
        self._started = False
        self._failed = ""

    def check(self) -> None:
        """Raise what the application failed by, if it did."""
        if self.failure is not None:
            raise self.failure

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Run the application's lifespan to its end, between the server and the application."""

        async def take() -> Message:
            message = await receive()
            self._taken = True
            return message

        async def say(message: Message) -> None:
            kind = message["type"]
            if not kind.startswith("lifespan."):
                text = f"the application answers its lifespan with {kind}"
                raise _NotItsLifespanError(text)
            if kind.endswith(".failed"):
                self._failed = f"{kind}: {message.get('message') or 'it does not say why'}"
                return  # the server is told below, without the text: that is said once, by us
            self._started = True
            await send(message)

        try:
            if self._mode != "off":
                await self._application(scope, take, say)
        except (Exception, SystemExit, BaseExceptionGroup) as error:  # noqa: BLE001 - no cancellation
            has_none = not self._taken or isinstance(error, _NotItsLifespanError)
            if self._mode == "on" or not has_none:
                self.failure = error
        await self._conclude(receive, send)

    async def _conclude(self, receive: Receive, send: Send) -> None:
        """Tell the server how it ended."""
        if self._failed:
            self.failure = self.failure or LifespanFailedError(self._failed)
        if self.failure is not None:
            what = "shutdown" if self._started else "startup"
            await send({"type": f"lifespan.{what}.failed", "message": ""})
        elif not self._started:
            await self._stand_in(receive, send)

    async def _stand_in(self, receive: Receive, send: Send) -> None:
        """Speak for an application that has no lifespan: what servers make of that differs too."""
        if not self._taken:
            await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
