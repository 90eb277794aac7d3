"""Numbers in the environment, read exactly as libsystemd reads them.

It reads as C does in base 0: leading white space, a sign, `0x`, `0b`, `0o` and a bare leading zero
for octal are all part of the grammar, and nothing may follow. Python's `int(text, 0)` differs on
most of these (`010`, `1_0`, digits of other scripts, trailing white space), so this is written out.
"""

from __future__ import annotations

_SPACE = " \t\n\r"
_DIGITS = "0123456789abcdef"
_LONGEST = 64  # a 64-bit number in base 2; more digits than that are out of every range anyway


def parse_integer(text: str, least: int, most: int) -> int | None:
    """Return the number that *text* spells, or None if it is none or not in *least*..*most*.

    Source: strtol(3) with base 0, and the prefixes that systemd adds to it.
    """
    text = text.lstrip(_SPACE)
    base = {"0b": 2, "0o": 8}.get(text[:2].lower(), 0)
    text = (text[2:] if base else text).lstrip(_SPACE + "\v\f").lower()
    negative = text.startswith("-")
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not base:
        base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
        digits = digits[2:] if base == 16 else digits  # noqa: PLR2004 - sixteen is hexadecimal
    if not digits or any(digit not in _DIGITS[:base] for digit in digits):
        return None
    if len(digits.lstrip("0")) > _LONGEST:
        return None
    number = int(digits, base)
    number = -number if negative else number
    return number if least <= number <= most else None


def parse_pid(text: str) -> int | None:
    """Return the process id that *text* spells, or None if it is none."""
    return parse_integer(text, 1, 2**31 - 1)
