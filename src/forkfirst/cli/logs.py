"""`logs`: the end of a service's log, and what follows, through every rotation."""

from __future__ import annotations

import os
import sys
import time

from forkfirst import errors
from forkfirst.cli import known

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import BinaryIO

_POLL_SECONDS = 0.1
_BLOCK = 64 * 1024


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `logs`."""
    parser.add_argument("name", help="the service")
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more; Ctrl-C ends it")
    parser.add_argument("-n", "--lines", type=_count, default=10, metavar="N", help="how many (10)")


def _count(text: str) -> int:
    import argparse  # noqa: PLC0415 - whoever parses has it

    if not text.isdecimal():
        message = f"expected 0 or more, got {text}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def run(_: str, arguments: argparse.Namespace) -> int:
    """Print the last lines of the log; with `--follow`, also what comes after."""
    service = known.find(arguments.name)
    if not service.log:
        message = f'"{service.name}" has no log file: its output goes to whoever supervises it'
        raise errors.UsageError(message)
    try:
        file = open(service.log, "rb")  # noqa: SIM115 - it is replaced at each rotation
    except OSError as error:
        message = f"cannot read log {service.log}: {(error.strerror or str(error)).lower()}"
        kind = errors.TargetError if isinstance(error, FileNotFoundError) else None
        raise (kind or errors.PermissionRefusedError)(message) from error
    _print_last_lines(file, arguments.lines)
    if arguments.follow:
        _follow(service.log, file)
    return 0


def _print_last_lines(file: BinaryIO, count: int) -> None:
    position = file.seek(0, os.SEEK_END)
    data = b""
    while position > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK, position)
        position = file.seek(position - size)
        data = file.read(size) + data
    if count > 0:
        _write(b"".join(data.splitlines(keepends=True)[-count:]))
    file.seek(0, os.SEEK_END)


def _follow(path: str, file: BinaryIO) -> None:
    """Print what is appended, for ever.

    A rotation renames the file, so the old one is read to its end before the new one is opened; a
    writer that was forked before the rotation may add to the old one, which is why it is read once
    more when the new one has been seen.
    """
    while True:
        while data := file.read(_BLOCK):
            _write(data)
        replaced = _open_if_replaced(path, file)
        if replaced is None:
            if file.tell() > os.fstat(file.fileno()).st_size:
                file.seek(0)  # somebody truncated it
            time.sleep(_POLL_SECONDS)
            continue
        while data := file.read(_BLOCK):
            _write(data)
        file.close()
        file = replaced


def _open_if_replaced(path: str, file: BinaryIO) -> BinaryIO | None:
    try:
        facts = os.stat(path)
        if os.path.samestat(facts, os.fstat(file.fileno())):
            return None
        return open(path, "rb")
    except FileNotFoundError:  # between the two halves of a rotation
        return None


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
