"""`listen`: open sockets for any command, and become it, or restart it whenever a file changes.

It takes what systemfd takes, and more. Without `--watch` nothing of forkfirst is left in the end:
the command has this process, its pid and its status.
"""

from __future__ import annotations

import os

from forkfirst import __version__, errors
from forkfirst.cli.hold import socket_form
from forkfirst.cli.hold.teller import Teller
from forkfirst.stages.hold import passing

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from forkfirst.cli.hold.socket_form import WantedSocket
    from forkfirst.stages.hold.passing import Held

_EVERYWHERE = ("*", "0.0.0.0", "[::]")  # noqa: S104 - not bound here, but shown as something to click
_MOST_BACKLOG = 2**31 - 1


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `listen`."""
    parser.usage = "%(prog)s [-s SOCKET]… [OPTION…] -- COMMAND [ARG…]"
    add = parser.add_argument
    add(
        "-s",
        "--socket",
        action="append",
        default=[],
        metavar="SOCKET",
        help="open this one: 5000, HOST:PORT, [V6]:PORT, unix:PATH, …, with NAME= before it if "
        "it shall have a name; or TYPE::SPEC with tcp, udp, unix, or http and https, which are "
        "tcp and shown as a URL; repeatable, the first is descriptor 3",
    )
    add("-b", "--backlog", metavar="N", help="connections that may wait (the kernel's limit)")
    add("--no-reuse", action="store_true", help="refuse a port with old connections (TIME_WAIT)")
    add(
        "--no-pid", action="store_true", help="set no LISTEN_PID, for a command that starts another"
    )
    add("-q", "--quiet", action="store_true", help="say nothing but errors")
    add(
        "-V",
        "--version",
        action="version",
        version=f"forkfirst {__version__}",
        help="say which this is",
    )
    add("--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal")
    add(
        "--watch",
        nargs="*",
        action="extend",
        metavar="PATH",
        help="start the command anew when a file below PATH (or here) changes, and hold the "
        "sockets meanwhile; repeatable",
    )
    add("--settle", metavar="SECONDS", help="with --watch: a silent command is good after it (1)")
    add("--ready-timeout", metavar="SECONDS", help="with --watch: how long to be ready (60)")
    add("--grace-period", metavar="SECONDS", help="with --watch: how long to stop (10)")


def run(_: str, arguments: argparse.Namespace) -> int:
    """Open the sockets and run the command; return only with `--watch`."""
    if not arguments.tail:
        message = "no command was given"
        raise errors.UsageError(message, hint="write it after --, as in: listen -s 5000 -- COMMAND")
    wanted = _parse_sockets(arguments)
    path = passing.find_program(arguments.tail[0])
    replaced = passing.find_replaced(len(wanted)) if arguments.watch is None else []
    held = passing.open_sockets(
        [each.listener for each in wanted], reuseaddr=not arguments.no_reuse
    )
    try:
        teller = Teller(color=arguments.color, quiet=arguments.quiet)
        _tell(teller, wanted, held, replaced)
    except BaseException:
        passing.close_sockets(held)
        raise
    if arguments.watch is None:
        passing.become_command(arguments.tail, held, path=path, with_pid=not arguments.no_pid)
    from forkfirst.cli.hold import watching  # noqa: PLC0415 - only here

    return watching.watch_command(arguments, held, teller)


def _parse_sockets(arguments: argparse.Namespace) -> list[WantedSocket]:
    backlog = None
    if arguments.backlog is not None:
        text = arguments.backlog
        if not text.isdecimal() or not 1 <= int(text) <= _MOST_BACKLOG:
            message = f"--backlog {text}: expected a number from 1 to {_MOST_BACKLOG}"
            raise errors.UsageError(message)
        backlog = int(text)
    directory = os.getcwd()
    return [
        socket_form.parse_socket(text, directory=directory, backlog=backlog)
        for text in arguments.socket
    ]


def _tell(
    teller: Teller, wanted: Sequence[WantedSocket], held: Sequence[Held], replaced: Sequence[int]
) -> None:
    if not held:
        teller("no sockets: none was asked for with -s")
    for number, (want, have) in enumerate(zip(wanted, held, strict=True), 3):
        shown = _make_url(want.scheme, have.address) if want.scheme else have.address
        teller(f"{have.name}: {shown} is descriptor {number}")
    for number in sorted(set(replaced) - {each.fd for each in held}):
        teller(f"descriptor {number} was open, and is replaced by a socket", important=True)


def _make_url(scheme: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{scheme}://{'localhost' if host in _EVERYWHERE else host}:{port}/"
