"""What to say of a command line that means nothing: which word is wrong, and what was meant."""

from __future__ import annotations

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

_KINDS = {"int": "a whole number", "float": "a number"}


def _find_near(word: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - loaded with the commands, and used only here

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return near[0] if near else ""


def explain_command(words: list[str], commands: Iterable[str], program: str) -> errors.UsageError:
    """Return what to say of *words*, the first of which is no command of *program*."""
    first = words[0]
    later = next((word for word in words[1:] if word in commands), "")
    if first.startswith("-"):
        message = f"there is no option {first} before the command"
        return errors.UsageError(message, hint=f"as in {program} {later or 'start'} {first} …")
    message = f'there is no command "{first}"'
    if ":" in first or first.endswith(".py"):
        hint = f"the command comes first: {program} {later or 'start'} {first}"
        return errors.UsageError(message, hint=hint)
    near = _find_near(first, commands)
    hint = f'did you mean "{near}"?' if near else f"see {program} --help"
    return errors.UsageError(message, hint=hint)


def explain(parser: argparse.ArgumentParser, message: str) -> errors.UsageError:
    """Return what to say of arguments that *parser* refused with *message*."""
    see = f"see {parser.prog} --help"
    kind, _, words = message.partition(": ")
    if kind == "unrecognized arguments":
        return _explain_unknown(parser, words.split(" ")[0], see)
    if kind == "the following arguments are required":
        return errors.UsageError(f"{parser.prog} needs {words}", hint=see)
    for wanted, words_for_it in _KINDS.items():
        message = message.replace(f"invalid {wanted} value: ", f"expected {words_for_it}, got ")
    return errors.UsageError(message.removeprefix("argument "), hint=see)


def _explain_unknown(parser: argparse.ArgumentParser, word: str, see: str) -> errors.UsageError:
    if word.startswith("-"):
        option = word.partition("=")[0]
        known = [
            name
            for action in parser._actions  # noqa: SLF001 - argparse has no other list of them
            for name in action.option_strings
        ]
        near = _find_near(option, known)
        hint = f"did you mean {near}?" if near else see
        return errors.UsageError(f"{parser.prog} has no option {option}", hint=hint)
    message = f'{parser.prog} does not know what "{word}" is'
    if "-- COMMAND" in (parser.usage or ""):
        see = f"a command and its arguments stand after --; {see}"
    return errors.UsageError(message, hint=see)
