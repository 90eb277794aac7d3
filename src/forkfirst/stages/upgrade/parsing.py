"""Reading the JSON of a state without the module that is for it.

`json` brings `re`, and whatever a supervisor has loaded it keeps for good: 0.5 MiB on CPython 3.11
and 0.9 on 3.13 (measured), of the 12 that it may take. The C half of `json` reads the same text the
same way, and needs neither.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _AsUsual:
    """What `json.JSONDecoder()` tells that C half."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # Infinity, -Infinity and NaN
    memo: dict[str, str] = {}  # noqa: RUF012 - part of what it looks for


_AS_USUAL: Any = _AsUsual  # whose type is the scanner itself, for type checkers


def parse(text: str) -> Any:
    """Return what the JSON *text* says, as `json.loads` does.

    `json` has the last word: on what the C half does not take, and where there is none.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        from _json import make_scanner  # noqa: PLC0415 - only for an upgrade, and private

        value, end = make_scanner(_AS_USUAL)(text, 0)
        if end == len(text):
            return value
    except (ImportError, AttributeError, TypeError, ValueError, StopIteration):
        pass
    import json  # noqa: PLC0415 - see above

    return json.loads(text)
