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
    parser.add_argument("name", metavar="NAME", help="the service")
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
        if isinstance(error, FileNotFoundError):
            raise errors.TargetError(message, hint=known.find_near(service.name)) from error
        raise errors.PermissionRefusedError(message) from error
    _print_last_lines(service.log, file, arguments.lines)
    if arguments.follow:
        _follow(service.log, file)
    return 0


def _print_last_lines(path: str, file: BinaryIO, count: int) -> None:
    """Print the last *count* lines, those of older files too; leave *file* at its end."""
    lines = _read_last_lines(file, count)
    file.seek(0, os.SEEK_END)
    number = 1
    while len(lines) < count:
        try:
            with open(f"{path}.{number}", "rb") as older:
                lines = _read_last_lines(older, count - len(lines)) + lines
        except OSError:
            break
        number += 1
    _write(b"".join(lines))


def _read_last_lines(file: BinaryIO, count: int) -> list[bytes]:
    position = file.seek(0, os.SEEK_END)
    data = b""
    while position > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK, position)
        position = file.seek(position - size)
        data = file.read(size) + data
    return data.splitlines(keepends=True)[-count:] if count > 0 else []


def _follow(path: str, file: BinaryIO) -> None:
    """Print what is appended, for ever.

    A rotation renames the file, so the old one is read to its end before the next one is opened; a
    writer that was forked before the rotation may add to the old one, which is why it is read once
    more when the next one has been seen.
    """
    while True:
        while data := file.read(_BLOCK):
            _write(data)
        following = _open_next(path, file)
        if following is None:
            if file.tell() > os.fstat(file.fileno()).st_size:
                file.seek(0)  # somebody truncated it
            time.sleep(_POLL_SECONDS)
            continue
        while data := file.read(_BLOCK):
            _write(data)
        file.close()
        file = following


def _open_next(path: str, file: BinaryIO) -> BinaryIO | None:
    """Open the file that was begun after *file*; None if there is none, or not yet.

    There may have been several rotations since the last look, so it need not be the newest. While
    one is under way there is one gap in the numbers.
    """
    ours = os.fstat(file.fileno())
    if _is_same(path, ours):
        return None
    names = [path]
    number = gap = 0
    while gap < 2:  # noqa: PLR2004 - see above
        number += 1
        name = f"{path}.{number}"
        if _is_same(name, ours):
            break
        gap = 0 if os.path.exists(name) else gap + 1
        if not gap:
            names.append(name)
    try:
        following = open(names[-1], "rb")  # noqa: SIM115 - it becomes the file that is followed
    except FileNotFoundError:  # between the two halves of a rotation
        return None
    if gap < 2 and not _is_same(name, ours):  # noqa: PLR2004 - it was moved on meanwhile: look again
        following.close()
        return None
    return following


def _is_same(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except FileNotFoundError:
        return False


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
