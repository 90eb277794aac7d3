"""Asks a running service one question, within a deadline.

Every wait of a call is bounded by the one deadline of that call, because the service that most
needs to be looked at is the one that no longer answers.

`_socket` is the C module below `socket`, with the same methods; the Python one on top wraps its
constants into enumerations: 2.8 ms of the 25 that a whole `status` may take.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
import time

from forkfirst.control.protocol import MAX_ANSWER, MAX_REQUEST, decode, encode, open_address
from forkfirst.errors import (
    ForkfirstError,
    NotRunningError,
    PermissionRefusedError,
    StuckError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_NOBODY_LISTENS = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)
_HUNG_UP = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


def ask(
    path: str, request: str, *, seconds: float = 2.0, passing: Sequence[int] = (), **fields: Any
) -> dict[str, Any]:
    """Ask the service that listens at *path* for *request*, and return its answer without "ok".

    The whole call takes at most *seconds*: connecting, sending and receiving together. Does not
    check who listens: the directory of *path* must be one that only its owner can write. Copies
    of the descriptors in *passing* go with the request.

    Raises:
        NotRunningError: Nobody listens there.
        StuckError: No whole answer came in time.
        PermissionRefusedError: The path, or the service, refused this user.
        ForkfirstError: The service answered with an error, hung up without an answer, or
            what it sent is not an answer.
    """
    deadline = time.monotonic() + seconds
    line = encode({"ask": request, **fields}, limit=MAX_REQUEST)
    attempt = f"cannot ask {path} for {request!r}"
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _connect(connection, path, deadline)
        try:
            _send(connection, line, passing, deadline)
        except OSError as error:
            # Who refuses a caller, or a long request, answers and hangs up before it is all read.
            if error.errno not in _HUNG_UP:
                raise
        answer = _receive(connection, deadline)
    except (TimeoutError, BlockingIOError) as error:  # connect(2) says EAGAIN: a full backlog
        message = f"{attempt}: no answer within {seconds:g} s"
        raise StuckError(message) from error
    except OSError as error:
        reason = f"{attempt}: {_describe(error)}"
        if error.errno in _NOBODY_LISTENS:
            raise NotRunningError(reason) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionRefusedError(reason) from error
        raise ForkfirstError(reason) from error
    finally:
        connection.close()
    return _unwrap(answer, attempt)


def _connect(connection: _socket.socket, path: str, deadline: float) -> None:
    """Connect, and leave *connection* with a time limit.

    The limit of connect(2) is SO_SNDTIMEO: a socket that does not block, as settimeout() makes
    it, would fail with EAGAIN on a full backlog at once, and poll(2) cannot wait for that.

    Source: unix(7), socket(7).
    """
    address, directory = open_address(path)
    try:
        seconds = _seconds_left(deadline)
        limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
        connection.connect(address)
    finally:
        if directory is not None:
            os.close(directory)


def _send(connection: _socket.socket, line: bytes, passing: Sequence[int], deadline: float) -> None:
    connection.settimeout(_seconds_left(deadline))
    if passing:
        rights = struct.pack(f"{len(passing)}i", *passing)
        sent = connection.sendmsg([line], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        line = line[sent:]
    connection.sendall(line)  # its time limit is that of the whole, not of each send(2)


def _receive(connection: _socket.socket, deadline: float) -> bytes:
    """Return what came until the first line feed, the end of the stream, or MAX_ANSWER."""
    chunks: list[bytes] = []
    size = 0
    while size <= MAX_ANSWER:
        connection.settimeout(_seconds_left(deadline))
        chunk = connection.recv(256 * 1024)
        chunks.append(chunk)
        size += len(chunk)
        if not chunk or b"\n" in chunk:
            break
    return b"".join(chunks)


def _unwrap(answer: bytes, attempt: str) -> dict[str, Any]:
    line, end, _ = answer.partition(b"\n")
    if not end:
        reason = "it hung up without an answer" if len(line) <= MAX_ANSWER else "it never ends"
        message = f"{attempt}: {reason}"
        raise ForkfirstError(message)
    try:
        fields = decode(line)
    except ForkfirstError as error:
        message = f"{attempt}: what it answered is {error}"
        raise ForkfirstError(message) from error
    if fields.pop("ok", False) is True:
        return fields
    message = f"{attempt}: {fields.get('error', 'it failed and does not say why')}"
    raise (PermissionRefusedError if fields.get("refused") else ForkfirstError)(message)


def _seconds_left(deadline: float) -> float:
    """Return what is left, more than 0.

    Raises:
        TimeoutError: Nothing is left.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    # A time limit of 0 would mean "for ever" to the kernel, which counts microseconds.
    return max(seconds, 1e-5)


def _describe(error: OSError) -> str:
    if error.errno in _NOBODY_LISTENS:
        return "nobody listens there"
    if error.errno in _HUNG_UP:
        return "it hung up without an answer"
    return (error.strerror or str(error)).lower()
