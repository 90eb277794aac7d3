"""The journal's native protocol: entries with fields, instead of lines on a stream.

An entry is one datagram. One that is too large for a datagram goes into a sealed memory file, of
which only the descriptor is sent. Each entry uses a socket of its own, as in `notify`, and waits at
most a second for a journal that is stuck: an entry is worth less than the service.
"""

from __future__ import annotations

import errno
import os
import struct

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    import socket
    from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_LONGEST_FIELD_NAME = 64
_SEND_SECONDS = 1.0
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Tell whether the descriptor *fd* is the stream that the journal opened for this service.

    JOURNAL_STREAM is inherited by every descendant, but a redirected stream is another inode.

    Source: systemd.exec(5), $JOURNAL_STREAM.
    """
    device, colon, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not (colon and _is_number(device) and _is_number(inode)):
        return False
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


def make_entry(message: str, priority: int | str, fields: Mapping[str, object]) -> bytes:
    """Make the octets of one entry. Pure.

    Args:
        message: What people read; any text.
        priority: A syslog level from 0 (emerg) to 7 (debug), or its name.
        fields: More fields. A value is text, octets, or anything with a text.

    Raises:
        UsageError: A name is not a field's: A-Z, 0-9 and _, not first a digit, and not first a _,
            which the journal keeps for what it knows itself; or there is no such priority.

    Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL, systemd.journal-fields(7).
    """
    if isinstance(priority, str) and priority in PRIORITIES:
        priority = PRIORITIES.index(priority)
    if not (isinstance(priority, int) and 0 <= priority < len(PRIORITIES)):
        refusal = f"there is no journal priority {priority!r}"
        raise errors.UsageError(refusal)
    parts = [_make_field("MESSAGE", message), _make_field("PRIORITY", priority)]
    for name, value in fields.items():
        if not is_field_name(name):
            refusal = f"{name!r} cannot name a field of the journal"
            raise errors.UsageError(refusal)
        parts.append(_make_field(name, value))
    return b"".join(parts)


def is_field_name(name: str) -> bool:
    """Tell whether a program may give a field this name."""
    if not 0 < len(name) <= _LONGEST_FIELD_NAME or name[0] in "_0123456789":
        return False
    return all("A" <= letter <= "Z" or "0" <= letter <= "9" or letter == "_" for letter in name)


def send(
    message: str, priority: int | str = "info", *, address: str = SOCKET, **fields: object
) -> None:
    """Write one entry to the journal at *address*.

    Raises:
        UsageError: A field has no good name; see `make_entry`.
        StuckError: The journal took nothing for a second.
        SystemRefusedError: There is no journal; the OSError is the cause.
    """
    send_entry(make_entry(message, priority, fields), address)


def send_entry(entry: bytes, address: str = SOCKET) -> None:
    """Send one entry that `make_entry` made.

    Raises:
        StuckError: The journal took nothing for a second.
        SystemRefusedError: It could not be sent; the OSError is the cause.

    Source: unix(7), memfd_create(2).
    """
    import socket  # noqa: PLC0415 - only who writes to the journal pays for it

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(_SEND_SECONDS)
            sending.connect(address)
            try:
                sending.send(entry, getattr(socket, "MSG_NOSIGNAL", 0))
            except OSError as error:
                if error.errno not in _TOO_LARGE:
                    raise
                _send_by_file(sending, entry)
    except TimeoutError as error:
        refusal = f"the journal at {address} took no entry in {_SEND_SECONDS:g} s"
        raise errors.StuckError(refusal) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        refusal = f"cannot write to the journal at {address}: {reason}"
        raise errors.SystemRefusedError(refusal) from error


def choose_priority(level: int) -> int:
    """Return the syslog level of a level of `logging`: 40 (ERROR) is 3 (err), 10 is 7."""
    for least, priority in ((50, 2), (40, 3), (30, 4), (25, 5), (20, 6)):
        if level >= least:
            return priority
    return 7


def make_handler(identifier: str, *, address: str = SOCKET) -> logging.Handler:
    """Return a handler of `logging` that writes to the journal.

    A record's exception is part of its message; what was given as `extra=` with a field's name is
    a field. As every handler, it reports its own failures on stderr and raises nothing.

    Args:
        identifier: What `journalctl -t` knows the entries by.
        address: The journal's socket.
    """
    import logging  # noqa: PLC0415 - 4 ms, and only a program that logs through it pays

    class JournalHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                fields = _fields_of(record, identifier)
                entry = make_entry(self.format(record), choose_priority(record.levelno), fields)
                send_entry(entry, address)
            except Exception:  # noqa: BLE001 - as logging.Handler asks: log calls do not raise
                self.handleError(record)

    return JournalHandler()


def _fields_of(record: logging.LogRecord, identifier: str) -> dict[str, object]:
    fields = {name: value for name, value in record.__dict__.items() if is_field_name(name)}
    fields.update(
        SYSLOG_IDENTIFIER=identifier,
        LOGGER=record.name,
        THREAD_NAME=record.threadName,
        CODE_FILE=record.pathname,
        CODE_LINE=record.lineno,
        CODE_FUNC=record.funcName,
    )
    fields.pop("MESSAGE", None)  # the record's own text has that place
    fields.pop("PRIORITY", None)
    return fields


def _make_field(name: str, value: object) -> bytes:
    octets = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    if b"\n" not in octets:
        return b"%s=%s\n" % (name.encode(), octets)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(octets)), octets)


def _send_by_file(sending: socket.socket, entry: bytes) -> None:
    """Send the descriptor of a memory file. Sealed: the journal maps it, and must be able to."""
    import fcntl  # noqa: PLC0415 - see send_entry
    import socket  # noqa: PLC0415 - see send_entry

    fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False, buffering=0) as file:
            view = memoryview(entry)
            while view:
                view = view[file.write(view) :]
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
        sending.sendmsg([b""], rights, getattr(socket, "MSG_NOSIGNAL", 0))
    finally:
        os.close(fd)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20  # noqa: PLR2004 - 64 bits
