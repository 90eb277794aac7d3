"""What a client and a running service say to each other: one JSON object a line.

A request is `{"ask": "status"}` and its fields; its answer is `{"ok": true, ...}` or
`{"ok": false, "error": "..."}`, with `"refused": true` where it is the caller who is not wanted. A
connection may ask several times, one after the other. Text is escaped to ASCII, so a line feed
only ever ends a message.

Only bytes and values here: nothing is sent, received or answered. json is imported where it is
used, because this module is loaded on the path to READY and json costs up to 6 ms.
"""

from __future__ import annotations

import errno
import os
import sys

from forkfirst.errors import ForkfirstError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_LAST_WORD = b'{"ok":false,"error":"cannot answer"}\n'
MAX_REQUEST = 64 * 1024
"""Bytes of the longest request, its line feed included."""

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of the longest answer: the stacks of some ten thousand tasks."""

MAX_REQUEST_BRACKETS = 500
"""Opening brackets in a request, those within its texts counted too.

The C parser recurses up to 10,000 deep on CPython 3.12 and later, some 2 MiB of stack; the server's
thread has 256 KiB. A request of 64 KiB of `[` would end the service with a segmentation fault.
"""

MAX_SOCKET_PATH = (108 if sys.platform == "linux" else 104) - 1
"""Bytes of the longest path that fits into an address, its final NUL left off: see unix(7)."""


def encode(message: Mapping[str, Any], *, limit: int = MAX_ANSWER) -> bytes:
    """Return *message* as one line.

    Raises:
        ForkfirstError: It is longer than *limit* bytes, or has a value that JSON has not.
    """
    import json  # noqa: PLC0415 - see the module's text

    try:
        line = json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        text = f"cannot put a message into JSON: {error}"
        raise ForkfirstError(text) from error
    if len(line) > limit:
        text = f"a message of {len(line)} bytes is longer than {limit}"
        raise ForkfirstError(text)
    return line


def encode_error(text: str, **fields: bool) -> bytes:
    """Return the answer that says *text* of a failure; never raises."""
    try:
        return encode({"ok": False, "error": text, **fields})
    except Exception:  # noqa: BLE001 - an error longer than an answer may be, say
        return _LAST_WORD


def decode(line: bytes | bytearray) -> dict[str, Any]:
    """Return the object that *line* holds, with or without its line feed.

    Does not look at its length (the reader must have bounded that), nor at what the fields mean.

    Raises:
        ForkfirstError: It is not UTF-8, not JSON, or not an object.
    """
    import json  # noqa: PLC0415 - see the module's text

    try:
        message = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        text = f"not UTF-8 at byte {error.start}"
        raise ForkfirstError(text) from error
    except json.JSONDecodeError as error:
        text = f"not JSON at character {error.pos}: {error.msg[:1].lower()}{error.msg[1:]}"
        raise ForkfirstError(text) from error
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits, or nested too deep
        text = f"not JSON that can be read: {error}"
        raise ForkfirstError(text) from error
    if not isinstance(message, dict):
        text = f"not a JSON object but {type(message).__name__}"
        raise ForkfirstError(text)
    return message


def decode_request(line: bytes | bytearray) -> dict[str, Any]:
    """Return the request that *line* holds: an object whose "ask" is a text.

    Raises:
        ForkfirstError: It is none, too long, or nested as no request is.
    """
    if len(line) > MAX_REQUEST:
        text = f"a request is longer than {MAX_REQUEST} bytes"
        raise ForkfirstError(text)
    if line.count(b"[") + line.count(b"{") > MAX_REQUEST_BRACKETS:
        text = f"a request has more than {MAX_REQUEST_BRACKETS} brackets"
        raise ForkfirstError(text)
    request = decode(line)
    if not isinstance(request.get("ask"), str):
        text = 'a request has no "ask", which must be a text'
        raise ForkfirstError(text)
    return request


def open_address(path: str) -> tuple[str, int | None]:
    """Return an address that reaches *path*, and a descriptor to close once it was used.

    A path that does not fit into a socket address is reached through its directory, opened with
    O_PATH: `/proc/self/fd/N/name`. A path that fits is its own address and needs no descriptor.

    Raises:
        OSError: The directory cannot be opened; ENAMETOOLONG where there is no such way (no
            O_PATH, or a file name that is too long by itself).

    Source: unix(7), open(2), proc(5).
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path, None
    directory, name = os.path.split(path)
    longest_name = MAX_SOCKET_PATH - len("/proc/self/fd/1234567890/")
    if sys.platform != "linux" or len(os.fsencode(name)) > longest_name:
        raise OSError(errno.ENAMETOOLONG, "longer than a socket's address may be", path)
    descriptor = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{descriptor}/{name}", descriptor
