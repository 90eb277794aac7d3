"""The report of a child to the process that waits for it, over a pipe.

A frame is four bytes of length and a body; the body is a row of items, each a letter for its type,
four bytes of length and the bytes: first the kind, then names and values in turn.

Both ends are the same interpreter, so `marshal` would do for the encoding; but a launcher is
often root and the service that reports to it is not any more, and a crafted `marshal` text can
crash who reads it. So the four types that a report needs are spelled out here, and read strictly.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Field = str | int | float | bytes

MAX_FRAME = 1 << 20
_LENGTH = struct.Struct("!I")
_ITEM = struct.Struct("!cI")
_CHUNK = 65536


class Report(Value):
    """What a child said: a kind, and named fields."""

    kind: str
    fields: Mapping[str, Field]


def open_channel() -> tuple[int, int]:
    """Return the reading and the writing end of a new pipe, both above 2 and close-on-exec.

    Above 2, because what is on 0-2 is replaced when the child redirects its standard descriptors.

    Raises:
        OSError: No descriptors are left (EMFILE, ENFILE).

    Source: pipe(7).
    """
    ends = list(os.pipe())
    try:
        for index, end in enumerate(ends):
            if end <= 2:  # noqa: PLR2004 - the last of the standard descriptors
                ends[index] = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)
                os.close(end)
    except OSError:
        for end in ends:
            os.close(end)
        raise
    return ends[0], ends[1]


def send(fd: int, kind: str, **fields: Field) -> None:
    """Write one report to *fd*, whole, waiting while the pipe is full.

    Raises:
        BrokenPipeError: Nobody reads any more.
        ValueError: The report is larger than `MAX_FRAME` bytes.
        TypeError: A field is none of str, int, float, bytes.
    """
    items = [_encode_item(kind)]
    for name, value in fields.items():
        items += (_encode_item(name), _encode_item(value))
    body = b"".join(items)
    if len(body) > MAX_FRAME:
        message = f"a report of {len(body)} bytes is larger than {MAX_FRAME}"
        raise ValueError(message)
    rest = memoryview(_LENGTH.pack(len(body)) + body)
    while rest:
        rest = rest[os.write(fd, rest) :]


class Reader:
    """The reading end: takes reports off *fd* one by one; does not own *fd*."""

    __slots__ = ("_buffer", "_ended", "_fd")

    def __init__(self, fd: int, held: bytes = b"") -> None:
        """Read from *fd*, after *held*, which another reader of it has `held`."""
        self._fd = fd
        self._buffer = bytearray(held)
        self._ended = False

    @property
    def held(self) -> bytes:
        """What came already, and is not a whole report yet."""
        return bytes(self._buffer)

    def fileno(self) -> int:
        """Return the descriptor, for a selector; a report may also be waiting in memory."""
        return self._fd

    def wait(self, seconds: float) -> bool:
        """Wait up to *seconds* until there is something to read, or an end of file, off *fd*."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def receive(self, seconds: float | None) -> Report | None:
        """Wait up to *seconds*, or for ever, for a report; return None at the end of file.

        A report that the end of file cuts short counts as the end of file: its writer died.

        Raises:
            TimeoutError: Neither came in time. What came so far is kept.
            ValueError: What came is no report, or is larger than `MAX_FRAME`.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            report = self._take_frame()
            if report is not None:
                return report
            if self._ended:
                return None
            if deadline is not None and not self.wait(deadline - time.monotonic()):
                message = "no report came in time"
                raise TimeoutError(message)
            chunk = os.read(self._fd, _CHUNK)
            self._buffer += chunk
            self._ended = not chunk

    def _take_frame(self) -> Report | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_FRAME:
            message = f"a report of {length} bytes is larger than {MAX_FRAME}"
            raise ValueError(message)
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return _decode_body(body)


def _encode_item(value: Field) -> bytes:
    if isinstance(value, str):
        letter, data = b"s", value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        letter, data = b"b", value
    elif isinstance(value, float):
        letter, data = b"f", struct.pack("!d", value)
    else:
        letter, data = b"i", b"%d" % value  # TypeError for what is none of the four
    return _ITEM.pack(letter, len(data)) + data


def _decode_body(body: bytes) -> Report:
    try:
        items = list(_decode_items(body))
        kind, names, values = items[0], items[1::2], items[2::2]
        if not isinstance(kind, str) or not all(isinstance(name, str) for name in names):
            raise TypeError  # noqa: TRY301 - one message for every way of being no report
        return Report(kind=kind, fields=dict(zip(map(str, names), values, strict=True)))
    except (ValueError, IndexError, TypeError, struct.error) as error:
        message = "what came through the channel is not a report"
        raise ValueError(message) from error


def _decode_items(body: bytes) -> Iterator[Field]:
    offset = 0
    while offset < len(body):
        letter, length = _ITEM.unpack_from(body, offset)
        start, offset = offset + _ITEM.size, offset + _ITEM.size + length
        if offset > len(body):
            raise ValueError
        data = body[start:offset]
        if letter == b"s":
            yield data.decode("utf-8", "surrogatepass")
        elif letter == b"b":
            yield data
        elif letter == b"f":
            yield struct.unpack("!d", data)[0]
        elif letter == b"i":
            yield int(data)
        else:
            raise ValueError
