"""What a command that stays says while it works, on standard error."""

from __future__ import annotations

import os

_CYAN = "\x1b[36m"
_PLAIN = "\x1b[0m"


class Teller:
    """Says on standard error what happens, in colour if that is wanted."""

    def __init__(self, *, color: str = "auto", quiet: bool = False) -> None:
        self._quiet = quiet
        self._color = color == "always" or (color == "auto" and _wants_color())

    def __call__(self, text: str, *, important: bool = False) -> None:
        """Say *text*; if this is quiet, only what is *important*."""
        if self._quiet and not important:
            return
        line = f"forkfirst: {text}"
        line = f"{_CYAN}{line}{_PLAIN}" if self._color else line
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def _wants_color() -> bool:
    return os.isatty(2) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
