"""The command line of a program that declares its own service: `python app.py start|stop|…`."""

from __future__ import annotations

import os
import sys

from forkfirst import errors
from forkfirst.cli import main as main_
from forkfirst.cli import start
from forkfirst.service import declare_by_name, make_declaration
from forkfirst.stages import probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.service import Service

_NOT_OF_ONE_PROGRAM = ("listen", "ps", "check", "demo")
_STARTING = ("start", "run", "plan")
_SWITCHES = {
    "start": {
        "-f, --foreground": "do not detach; the same as run",
        "-r, --restart": "stop it first, if it runs",
        "--spawn": "fork nothing: execute fresh interpreters instead",
    },
    "run": {},
    "plan": {
        "-f, --foreground": "plan for run, not start",
        "--spawn": "plan for start --spawn",
    },
}
"""What can be said of a start that is declared in the program, and what it means.

No parser of argparse: a start need not load that.
"""

_HELP = ("-h", "--help")


def main(service: Service, argv: list[str]) -> int:
    """Run the command in *argv* for *service*; return the exit status.

    After a start that has forked it does not return, but leaves by `_exit`: what the program has
    registered for its exit is the service's now, and would remove under it what it is using.
    """
    try:
        main_.escape_what_cannot_be_shown(argv)
        status = _dispatch(service, argv)
    except errors.ForkfirstError as error:
        main_.complain(error)
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    status = main_.finish(argv[:1], status)
    if argv[:1] == ["start"] and status == 0:
        os._exit(status)  # daemon(7), step 15; in the foreground the program has left already
    return status


def run(service: Service) -> int:
    """Run *service* in the foreground; return its exit status, or that of its failure."""
    return main(service, ["run"])


def _own_words() -> tuple[str, ...]:
    """Return what makes the interpreter run this program again: its file, or `-m MODULE`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return (os.path.abspath(sys.argv[0]),)
    return ("-m", spec.name.removesuffix(".__main__"))


def _refuse_unknown(program: str, command: str, arguments: list[str]) -> None:
    known = [word for words in _SWITCHES[command] for word in words.split(", ")]
    unknown = [word for word in arguments if word not in known]
    if unknown:
        message = f"{program} {command} does not know {unknown[0]}"
        hint = "the service is declared in the program; known here: " + (
            ", ".join(known) or "nothing"
        )
        raise errors.UsageError(message, hint=hint)


def _describe_commands(service: Service, program: str, commands: list[str]) -> str:
    purpose = f'The service "{make_declaration(service).name}", which is declared in this program.'
    return main_.list_commands(program, commands, purpose, f"{program} COMMAND --help tells more.")


def _describe_start(program: str, command: str) -> str:
    summary = main_.COMMANDS[command][1]
    switches = {"-h, --help": "show this help message and exit", **_SWITCHES[command]}
    lines = [
        f"usage: {program} {command} [OPTION…]",
        "",
        f"{summary[0].upper()}{summary[1:]}.",
        "What it listens on, its log and its limits are declared in the program.",
        "",
        "options:",
        *(f"  {words:<18}{meaning}" for words, meaning in switches.items()),
    ]
    return "\n".join(lines) + "\n"


def _do(service: Service, name: str, words: list[str]) -> int:
    """Do the command in *words*, which does not start it, as `forkfirst COMMAND NAME` does."""
    import argparse  # noqa: PLC0415 - a start needs none

    command, *arguments = words
    parser, act = main_.make_parser(command, os.path.basename(sys.argv[0]))
    parser.usage = f"{parser.prog} [OPTION…]"
    for action in parser._actions:  # noqa: SLF001 - argparse has no other list of them
        if action.dest in ("name", "names"):
            action.help = argparse.SUPPRESS  # the name is the program's to give
        elif not action.option_strings:
            parser.usage += f" {action.metavar}"
    namespace = parser.parse_args([name, *arguments])
    if getattr(namespace, "names", [name]) != [name]:
        message = f'{parser.prog} does not know what "{namespace.names[1]}" is'
        raise errors.UsageError(message, hint="the service is the program's own")
    if command == "reload":
        namespace.declaration = declare_by_name(service)
    return act(command, namespace)


def _dispatch(service: Service, argv: list[str]) -> int:
    program = os.path.basename(sys.argv[0])
    commands = [name for name in main_.COMMANDS if name not in _NOT_OF_ONE_PROGRAM]
    if argv[:1] and argv[0] in (*_HELP, "help"):
        print(_describe_commands(service, program, commands), end="")
        return 0
    if not argv or argv[0] not in commands:
        what = f'there is no command "{argv[0]}"' if argv else "no command was given"
        message = f"{what}; {program} has " + ", ".join(commands)
        raise errors.UsageError(message)
    command, arguments = argv[0], argv[1:]
    if command in _STARTING and {*_HELP}.intersection(arguments):
        print(_describe_start(program, command), end="")
        return 0
    spawn = "--spawn" in arguments or (
        # The supervisor of workers must never have imported what they run.
        command in ("start", "plan") and (service.workers > 0 or not probe.forks_well())
    )
    declaration = declare_by_name(service) if spawn else make_declaration(service)
    if command not in _STARTING:
        return _do(service, declaration.name, argv)
    _refuse_unknown(program, command, arguments)
    foreground = command == "run" or bool({"-f", "--foreground"} & set(arguments))
    if command == "run" and service.workers:
        message = f"{program} has loaded itself, and the supervisor of workers must not have"
        hint = f"forkfirst run {declaration.target} --workers {service.workers} …"
        raise errors.UsageError(message, hint=hint)
    if command == "plan":
        from forkfirst.cli import explain  # noqa: PLC0415 - only for this

        return explain.show(declaration, foreground=foreground, spawn=spawn)
    if {"-r", "--restart"} & set(arguments):
        from forkfirst.cli import stop  # noqa: PLC0415 - only with --restart

        stop.stop_if_running(declaration)
    again = (sys.executable, *_own_words(), "start", *(("--spawn",) if spawn else ()))
    own = None if spawn or isinstance(service.program, str) else service.program
    start.start(declaration, again, foreground=foreground, program=own, spawn=spawn)
    return 0
