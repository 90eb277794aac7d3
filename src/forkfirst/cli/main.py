"""Which command was meant, and what its failure looks like.

Only the parser of the one command that was given is built: all of them would cost every call 2 ms.
What is `plain` needs not even that.
"""

from __future__ import annotations

import os
import sys

from forkfirst import errors
from forkfirst.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, Protocol, TypeVar

    from forkfirst.stages.fork_first import Forked

    Thing = TypeVar("Thing")

    class Family(Protocol):
        """A module of commands: each can describe its arguments and run."""

        def configure(self, command: str, parser: argparse.ArgumentParser) -> None:
            """Add the arguments of *command* to *parser*."""

        def run(self, command: str, arguments: argparse.Namespace) -> int:
            """Do it, and return the exit status."""


COMMANDS = {
    "start": ("start", "start a service in the background, and wait until it is ready"),
    "run": ("start", "run a service in the foreground, under whoever supervises it"),
    "listen": ("hold.listen", "open sockets for any command, and run it with them"),
    "stop": ("stop", "stop a service, and wait until it is gone"),
    "restart": ("stop", "stop a service, then start it as it was started before"),
    "reload": ("reload", "have the new code take over from the old, without a gap"),
    "upgrade": ("upgrade", "have a new forkfirst supervise a service, and nothing else change"),
    "scale": ("reload", "change how many workers a service has"),
    "status": ("observe", "say whether a service runs, and how it is"),
    "ps": ("observe", "list all of your services"),
    "forget": ("stop", "take a service that does not run off the list"),
    "logs": ("logs", "show what a service has written"),
    "rotate": ("observe", "begin a new log file, keeping the old one"),
    "stacks": ("observe", "show where every thread and task of a service is"),
    "plan": ("explain", "print each step that start would take, and do nothing"),
    "check": ("hazards.check", "say what importing a program leaves that no fork survives"),
    "demo": ("hazards.demo", "show what happens to a program that is forked while it runs"),
}
"""Command to the module that has it, and its line in the list of commands."""

_UNHEARD = 141
"""128 + SIGPIPE: nobody read the output any more."""


def main(argv: list[str], forked: Forked | None = None) -> int:
    """Run the command in *argv* (without the program's name); return the exit status.

    *forked* is the process that waits to be a service, if it was made already.

    A failure that forkfirst knows is one line on standard error, with a hint where that is sure.
    """
    try:
        escape_what_cannot_be_shown(argv)
        return _dispatch(argv, forked)
    except errors.ForkfirstError as error:
        complain(error)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _UNHEARD  # the reader of our output has gone, as `head` does
    except OSError as error:
        refusal = describe_refusal(error)
        complain(refusal)
        return refusal.exit_status


def escape_what_cannot_be_shown(argv: list[str]) -> None:
    """Have what the terminal has no characters for written as an escape, as stderr does already.

    Else a status in another script than the terminal's would end a command with a traceback. The
    stream of a program that runs in the foreground is its own, and left as it is.
    """
    if sys.stdout is not None and (argv[:1] != ["run"] or _asks_for_help(argv)):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def complain(error: errors.ForkfirstError) -> None:
    """Say to the person what failed; if nobody listens any more, the status must do."""
    hint = f"\n  {error.hint}" if error.hint else ""
    for stream, text in ((sys.stdout, ""), (sys.stderr, f"forkfirst: {error}{hint}\n")):
        try:
            if stream is not None:  # its descriptor was closed when we were started
                stream.write(text)
                stream.flush()
        except OSError:
            continue


def do_each(things: Sequence[Thing], act: Callable[[Thing], int]) -> int:
    """Do *act* with each of *things*, whatever becomes of the others; the first failure counts.

    Raises:
        ForkfirstError: That of the only one.
    """
    status = 0
    for thing in things:
        try:
            outcome = act(thing)
        except errors.ForkfirstError as error:
            if len(things) == 1:
                raise
            complain(error)
            outcome = error.exit_status
        status = status or outcome
    return status


def describe_refusal(error: OSError) -> errors.ForkfirstError:
    """Return what to say of *error*, which met a command where none was expected."""
    import errno  # noqa: PLC0415 - only for a failure

    where = f" {error.filename}" if error.filename else ""
    message = f"cannot go on{where}: {(error.strerror or str(error)).lower()}"
    if error.errno == errno.ENOENT and not where and not _has_directory():
        message = "cannot go on: the current directory was removed"
        return errors.SystemRefusedError(message, hint="change to one that is there")
    if error.errno in (errno.EACCES, errno.EPERM):
        return errors.PermissionRefusedError(message)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return errors.DiskFullError(message)
    return errors.SystemRefusedError(message)


def _has_directory() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def finish(command: Sequence[str], status: int) -> int:
    """Write out what is left of the output of *command*; return the status to exit with.

    A command that asks has failed if its answer reached nobody. A start has not: the service runs.
    """
    for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            # The interpreter's own last flush would fail again, and make it status 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
            if fd == 1 and status == 0 and "start" not in command:
                is_pipe = isinstance(error, BrokenPipeError)
                status = _UNHEARD if is_pipe else errors.DiskFullError.exit_status
    return status


def make_parser(
    command: str, program: str = "forkfirst"
) -> tuple[argparse.ArgumentParser, Callable[..., int]]:
    """Return the parser of *command* of *program*, and the function that runs what it parsed."""
    import argparse  # noqa: PLC0415 - `forkfirst --version` needs none

    module, summary = COMMANDS[command]
    family = _load(module)
    parser = argparse.ArgumentParser(
        prog=f"{program} {command}",
        description=summary[0].upper() + summary[1:] + ".",
        # argparse asks for a formatter with every argument that is added, and without a width that
        # one imports shutil, and with it three libraries of compression: 4 ms.
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, width=_look_up_width()
        ),
        allow_abbrev=False,
    )
    parser.error = lambda message: _refuse(parser, message)  # type: ignore[method-assign] # 64, not 2
    family.configure(command, parser)
    return parser, family.run


def _dispatch(argv: list[str], forked: Forked | None) -> int:
    if argv[:1] == ["help"] and argv[1:2] and argv[1] in COMMANDS:
        argv = [argv[1], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(describe_commands(), end="")
        return 0 if argv else errors.UsageError.exit_status
    if argv[0] in ("-V", "--version"):
        from forkfirst import __version__  # noqa: PLC0415 - only here

        print(f"forkfirst {__version__}")
        return 0
    command = argv[0]
    if command not in COMMANDS:
        from forkfirst.cli import mistakes  # noqa: PLC0415 - only for one

        raise mistakes.explain_command(argv, COMMANDS, "forkfirst")
    namespace = parse(command, argv[1:])
    namespace.forked = forked
    return _load(COMMANDS[command][0]).run(command, namespace)


def parse(command: str, arguments: list[str]) -> argparse.Namespace:
    """Return what *arguments* mean to *command*.

    Raises:
        UsageError: They mean nothing.
    """
    tail: list[str] = []
    if "--" in arguments:  # what follows is another program's command line, never ours
        index = arguments.index("--")
        arguments, tail = arguments[:index], arguments[index + 1 :]
    parser: Any = plain.Parser()
    _load(COMMANDS[command][0]).configure(command, parser)
    namespace: argparse.Namespace | None = parser.parse(arguments)
    if namespace is None:
        namespace = make_parser(command)[0].parse_args(arguments)
    namespace.tail = tail
    return namespace


def describe_commands() -> str:
    """Return the text of `forkfirst --help`."""
    purpose = "Run any async program as a well-behaved Unix service: first fork, then the runtime."
    more = "forkfirst COMMAND --help tells more; forkfirst --version says which this is."
    return list_commands("forkfirst", list(COMMANDS), purpose, more)


def list_commands(program: str, commands: list[str], purpose: str, more: str) -> str:
    """Return the help of *program*, which has these *commands*."""
    width = max(map(len, commands))
    lines = [
        f"usage: {program} COMMAND [OPTION…]",
        "",
        purpose,
        "",
        *(f"  {name:<{width}}  {COMMANDS[name][1]}" for name in commands),
        "",
        more,
    ]
    return "\n".join(lines) + "\n"


def _asks_for_help(argv: list[str]) -> bool:
    return bool({"-h", "--help", "help"}.intersection(argv))


def _look_up_width() -> int:
    """Return how many columns the terminal has, less two as argparse leaves them; 78 if none."""
    if not _asks_for_help(sys.argv):
        return 78
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        return 78
    return max(40, columns - 2)


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    from forkfirst.cli import mistakes  # noqa: PLC0415 - only for one

    raise mistakes.explain(parser, message)


def _load(module: str) -> Family:
    return __import__(f"forkfirst.cli.{module}", fromlist=["run"])
