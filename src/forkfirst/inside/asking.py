"""Ask a running service, and connect to it, without blocking whoever runs a loop.

What `control.client` does for commands, as steps of `waits`: each call may wait, none blocks.
"""

from __future__ import annotations

import errno
import os
import socket
import time

from forkfirst import errors
from forkfirst.control import protocol
from forkfirst.inside.waits import Wait
from forkfirst.plan.listener import parse_listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from forkfirst.inside.waits import Work

_NOBODY_LISTENS = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)
_HUNG_UP = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
_CHUNK = 64 * 1024
_FULL_BACKLOG_SECONDS = 0.005
"""Until a full backlog is tried again: connect(2) fails at once, and poll(2) cannot tell."""
_LOOPBACK = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what it is not


def ask_status(path: str, seconds: float) -> Work[dict[str, Any] | None]:
    """Return what the service that listens at *path* says of itself; None if nobody is there.

    A service that has too many callers hangs up on some, and one that is ending may not know what
    to answer: that is nobody, too, and to be asked again.

    Raises:
        StuckError: No whole answer came within *seconds*.
        PermissionRefusedError: This user may not ask.
    """
    deadline = time.monotonic() + seconds
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)  # noqa: FBT003 - its only way
        address, directory = protocol.open_address(path)
        try:
            yield from _connect(connection, address, deadline)
        finally:
            if directory is not None:
                os.close(directory)
        connection.send(protocol.encode({"ask": "status"}))  # fits into any fresh buffer
        answer = yield from _receive_line(connection, deadline)
    except OSError as error:
        if error.errno in _NOBODY_LISTENS or error.errno in _HUNG_UP:
            return None
        message = f"cannot ask {path}: {(error.strerror or str(error)).lower()}"
        if error.errno in (errno.EACCES, errno.EPERM):
            raise errors.PermissionRefusedError(message) from error
        raise errors.StuckError(message) from error
    finally:
        connection.close()
    if not answer.endswith(b"\n"):
        return None
    facts = protocol.decode(answer)
    if facts.get("refused"):
        message = f"cannot ask {path}: {facts.get('error')}"
        raise errors.PermissionRefusedError(message)
    return facts if facts.get("ok") is True else None


def open_connection(address: str, seconds: float) -> Work[socket.socket | None]:
    """Return a stream connected to *address*, which does not block; None if nobody listens there.

    Args:
        address: As `status` shows it.
        seconds: How long it may take.

    Raises:
        UsageError: It is no address that one can connect a stream to.
        StuckError: It was not accepted within *seconds*.
        SystemRefusedError: The kernel refused.
    """
    listener = parse_listener(address)
    match listener.kind:
        case "unix":
            family: int = socket.AF_UNIX
            place: Any = f"\0{listener.abstract}" if listener.abstract else listener.path
        case "tcp":
            host = _LOOPBACK.get(listener.host, listener.host)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            place = (host, listener.port)
        case _:
            message = f"cannot connect to {address}: expected TCP or a unix stream"
            raise errors.UsageError(message)
    stream = socket.socket(family)
    try:
        stream.setblocking(False)  # noqa: FBT003 - its only way
        yield from _connect(stream, place, time.monotonic() + seconds)
    except OSError as error:
        stream.close()
        if error.errno in _NOBODY_LISTENS:
            return None
        message = f"cannot connect to {address}: {(error.strerror or str(error)).lower()}"
        kind = errors.StuckError if isinstance(error, TimeoutError) else errors.SystemRefusedError
        raise kind(message) from error
    except BaseException:
        stream.close()
        raise
    return stream


def _connect(stream: socket.socket, address: Any, deadline: float) -> Work[None]:
    while True:
        number = stream.connect_ex(address)
        if number in (0, errno.EISCONN):
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
        if number == errno.EINPROGRESS:
            yield Wait(fd=stream.fileno(), writing=True, seconds=left)
            number = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif number == errno.EAGAIN:
            yield Wait(seconds=_FULL_BACKLOG_SECONDS)
            continue
        if number:
            raise OSError(number, os.strerror(number))


def _receive_line(stream: socket.socket, deadline: float) -> Work[bytes]:
    """Return what came until a line feed, or until the other side hung up."""
    data = b""
    while not data.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
        if (yield Wait(fd=stream.fileno(), seconds=left)):
            chunk = stream.recv(_CHUNK)
            if not chunk:
                break
            data += chunk
            if len(data) > protocol.MAX_ANSWER:
                break
    return data
