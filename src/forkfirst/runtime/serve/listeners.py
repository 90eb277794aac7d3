"""The listeners that a server is given: those of the service, never one of its own."""

from __future__ import annotations

import socket

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.runtime.context import Context

BACKLOG = socket.SOMAXCONN
"""What each server says to listen(2) again: its own default would shorten the queue for everybody
who holds the listener."""


def list_streams(context: Context, server: str) -> list[socket.socket]:
    """Return every listener of the service, in order.

    Raises:
        ConfigError: One is not of the kind that *server* accepts from, or there is none.
    """
    found = [(name, one) for name, several in context.listeners.items() for one in several]
    for name, one in found:
        if one.type != socket.SOCK_STREAM:
            message = f"{server} cannot take the listener {name!r}: it is no stream socket"
            raise errors.ConfigError(message, hint="it takes tcp, unix and vsock listeners")
    if not found:
        message = f"{server} has nothing to listen on"
        raise errors.ConfigError(message, hint="give --listen 8000, or --listen unix:/run/web")
    return [one for _, one in found]
