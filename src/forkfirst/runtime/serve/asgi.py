"""An ASGI application as a server is given it: what a service needs to know goes through here.

A request costs one more call, and no more than that.
"""

from __future__ import annotations

from forkfirst import errors
from forkfirst.runtime.serve.lifespan import Lifespan
from forkfirst.runtime.serve.parting import Websockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from forkfirst.runtime.serve.lifespan import Message, Receive, Send

_MODES = ("auto", "on", "off")


class Application:
    """One application, for the three servers of ASGI.

    Attributes:
        lifespan: What it makes of its lifespan.
        websockets: The websockets that it has open.
        count: Called for each request that begins.
    """

    def __init__(
        self, application: Callable[..., Awaitable[None]], options: dict[str, Any]
    ) -> None:
        """Take the option `lifespan` out of *options*: it means the same for every server.

        Raises:
            ConfigError: It is none of auto, on and off.
        """
        mode = options.pop("lifespan", "auto")
        if mode not in _MODES:
            message = f"serve-option lifespan: {mode!r} is not one of {', '.join(_MODES)}"
            raise errors.ConfigError(message)
        self.lifespan = Lifespan(application, mode)
        self.websockets = Websockets(application)
        self.count: Callable[[], object] = lambda: None
        self._serve = application

    def __call__(self, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve what *scope* is about."""
        kind = scope["type"]
        if kind == "http":
            self.count()
            return self._serve(scope, receive, send)
        if kind == "websocket":
            return self.websockets(scope, receive, send)
        return self.lifespan(scope, receive, send)
