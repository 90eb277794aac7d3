"""The names under which a manager keeps the listeners that a service opened itself.

A name is all that the next start has to know the socket by: what was declared, in the grammar of
addresses, and for a unix path which inode was made there. So it cannot be mistaken for the listener
of another declaration, nor for one whose path somebody has removed or replaced since.

The form is one that systemd takes for FDNAME: ASCII without colons, at most 255 characters.
"""

from __future__ import annotations

RESERVED = "forkfirst/"
"""What our names begin with; a program's own names must not."""

_LONGEST = 255
_MARK = "#"
_SAFE = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~/=?&@*[]")


def make_name(text: str, identity: tuple[int, int] | None = None) -> str:
    """Return the name for the listener that is declared as *text*; "" if it would be too long.

    Args:
        text: The listener, as it is printed.
        identity: Inode and device of its path, if it has one.
    """
    octets = text.encode("utf-8", "surrogateescape")
    quoted = "".join(chr(one) if chr(one) in _SAFE else f"%{one:02X}" for one in octets)
    suffix = "" if identity is None else f"{_MARK}{identity[0]}.{identity[1]}"
    name = f"{RESERVED}{quoted}{suffix}"
    return name if len(name) <= _LONGEST else ""


def is_reserved(name: str) -> bool:
    """Return whether *name* is one of ours."""
    return name.startswith(RESERVED)


def read_name(name: str) -> tuple[str, tuple[int, int] | None] | None:
    """Return what `make_name` was given; None if it has not made *name*."""
    if not is_reserved(name):
        return None
    quoted, mark, suffix = name.removeprefix(RESERVED).partition(_MARK)
    identity = None
    try:
        if mark:
            inode, device = map(int, suffix.split("."))
            identity = inode, device
        text = _unquote(quoted)
    except ValueError:
        return None
    return (text, identity) if make_name(text, identity) == name else None


def _unquote(quoted: str) -> str:
    first, *rest = quoted.split("%")
    octets = first.encode("ascii")
    for part in rest:
        octets += bytes.fromhex(part[:2]) + part[2:].encode("ascii")
    return octets.decode("utf-8", "surrogateescape")
