"""Command lines that need no argparse, whose import and whose parser cost a start 3 of 48 ms.

Plain is one in which every option is spelled out and every value is where it is expected. Any
other, wrong or only unusual, is argparse's to read and to explain. A command adds its arguments to
either in the same words, and a property test holds the two to the same meaning.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

_NO_VALUE = {"store_true": True, "store_const": None}
"""Actions of options without a value, and what they set if `const` does not say."""

_WITH_VALUE = ("store", "append")

_SEVERAL = ("*", "+")
"""What a positional that takes more than one word has for `nargs`."""


class Arguments:
    """What a command line means, as attributes: what argparse calls a namespace."""


class _NotPlainError(Exception):
    """This command line is for argparse."""


class _Argument:
    """One argument as it was added; its fields are those of `argparse.Action`."""

    def __init__(self, names: tuple[str, ...], how: dict[str, Any]) -> None:
        self.action: str = how.get("action", "store")
        self.nargs: str | None = how.get("nargs")
        self.convert: Callable[[str], Any] = how.get("type", str)
        self.choices: Sequence[str] | None = how.get("choices")
        self.const = how.get("const", _NO_VALUE.get(self.action))
        self.default = how.get("default", False if self.action == "store_true" else None)
        long = next((name for name in names if name.startswith("--")), names[0])
        self.dest: str = how.get("dest") or long.lstrip("-").replace("-", "_")

    def put(self, arguments: Arguments, word: str) -> None:
        """Set the attribute from the value that was given."""
        try:
            value = self.convert(word)
        except Exception:  # noqa: BLE001 - whatever is wrong, argparse says it
            raise _NotPlainError from None
        if self.choices is not None and value not in self.choices:
            raise _NotPlainError
        if self.action == "append":
            value = [*(getattr(arguments, self.dest) or ()), value]
        setattr(arguments, self.dest, value)


class Parser:
    """Has arguments added like an `argparse.ArgumentParser`, and reads what is plain."""

    def __init__(self) -> None:
        self._options: dict[str, _Argument] = {}
        self._positionals: list[_Argument] = []

    def add_argument(self, *names: str, **how: Any) -> None:
        """Add an argument; see `argparse.ArgumentParser.add_argument`."""
        if how.get("action") == "version":
            return  # an option that is not known is for argparse
        argument = _Argument(names, how)
        if names[0].startswith("-"):
            self._options.update(dict.fromkeys(names, argument))
        else:
            self._positionals.append(argument)

    def parse(self, words: Sequence[str]) -> Arguments | None:
        """Return what *words* mean, or None if they are not plain."""
        arguments = Arguments()
        for argument in (*self._options.values(), *self._positionals):
            setattr(arguments, argument.dest, argument.default)
        try:
            self._fill(arguments, iter(words))
        except _NotPlainError:
            return None
        return arguments

    def _fill(self, arguments: Arguments, words: Iterator[str]) -> None:
        left = list(self._positionals)
        several: list[str] | None = None
        for word in words:
            if word.startswith("-"):
                several = None  # what follows is not taken for more of the same
                self._take_option(arguments, word, words)
            elif several is not None and word:
                several.append(word)
            elif not word or not left:
                raise _NotPlainError
            elif left[0].nargs in _SEVERAL:
                several = [word]
                setattr(arguments, left.pop(0).dest, several)
            else:
                left.pop(0).put(arguments, word)
        for argument in left:
            if argument.nargs == "*":
                setattr(arguments, argument.dest, [])
            elif argument.nargs != "?":
                raise _NotPlainError

    def _take_option(self, arguments: Arguments, word: str, words: Iterator[str]) -> None:
        option = self._options.get(word)
        value = ""
        if option is None:
            word, _, value = word.partition("=")
            option = self._options.get(word)
            if option is None or not value or not word.startswith("--"):
                raise _NotPlainError
        if option.action in _NO_VALUE and not value:
            setattr(arguments, option.dest, option.const)
        elif option.action in _WITH_VALUE and option.nargs is None:
            value = value or next(words, "-")
            if not value or value.startswith("-"):
                raise _NotPlainError
            option.put(arguments, value)
        else:
            raise _NotPlainError
