"""The letters of an address: hosts, ports, numbers and escaped names, read out of a longer text.

Invariant: every function here reads `text[start:end]` and either returns a value or raises
`AddressError` with a position in the whole *text*, so that one caret is right for every caller.
Nothing else is ever raised, whatever the text holds.
"""

from __future__ import annotations

from forkfirst.errors import AddressError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "*"

DIGITS = frozenset("0123456789")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HOST_CHARACTERS = _LETTERS | DIGITS | frozenset("-_.")
NAME_CHARACTERS = _LETTERS | DIGITS | frozenset("_.@+-")
"""What stands for itself in a listener's name; everything else is written %XX."""

_LONGEST_HOST = 253
_LONGEST_LABEL = 63
_LONGEST_SCOPE = 15  # IFNAMSIZ - 1
_GROUPS = 8  # of an IPv6 address
_BYTES = frozenset(str(byte) for byte in range(256))
_LONGEST_NAME = 255  # systemd's FDNAME_MAX
_WINDOW = 72  # columns of a text that an error shows, so that the caret stays on its line


def refuse(text: str, position: int, why: str, *, hint: str = "") -> NoReturn:
    """Raise an `AddressError` that shows *text* and points at *position* in it."""
    first = max(0, position - _WINDOW + 12)
    # One column for each character, whatever it is: otherwise the caret would point elsewhere.
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    shown = shown[first : first + _WINDOW]
    message = f"not an address: {why}\n  {shown}\n  {' ' * (position - first)}^"
    raise AddressError(message, text=text, position=position, hint=hint)


def parse_number(  # noqa: PLR0913 - the text, where in it, what it is, and its two bounds
    text: str, start: int, end: int, what: str, *, least: int = 0, most: int
) -> int:
    """Return the decimal number in `text[start:end]`: no sign, no space, no leading zero."""
    if start == end:
        refuse(text, start, f"{what} is missing")
    for position in range(start, end):
        if text[position] not in DIGITS:
            refuse(text, position, f"{what} is a number")
    if text[start] == "0" and end - start > 1:
        refuse(text, start, f"{what} has no leading zero")
    # The length first: int() refuses thousands of digits with an error of its own.
    if end - start > len(str(most)) or not least <= int(text[start:end]) <= most:
        refuse(text, start, f"{what} is a number from {least} to {most}")
    return int(text[start:end])


def parse_port(text: str, start: int, end: int) -> int:
    """Return the port in `text[start:end]`; 0 lets the kernel choose."""
    return parse_number(text, start, end, "a port", most=65535)


def parse_host_and_port(text: str, start: int, end: int) -> tuple[str, str | None, int]:
    """Return host, scope and port of `PORT`, `HOST:PORT`, `*:PORT` or `[V6%SCOPE]:PORT`.

    A port alone is the loopback address: nothing is offered to the network by being short. An IPv6
    address comes back in the form of RFC 5952, a host name in lower case.
    """
    if start == end:
        refuse(text, start, "an address is missing")
    if text[start] == "[":
        return _parse_bracketed(text, start, end)
    colon = text.find(":", start, end)
    if colon < 0:
        if all(text[position] in DIGITS for position in range(start, end)):
            return LOOPBACK, None, parse_port(text, start, end)
        if text[start:end] != EVERY_ADDRESS:
            _parse_host(text, start, end)  # a wrong character is worth more than a missing port
        refuse(text, end, "a port is missing", hint='write "HOST:PORT"')
    if colon == start:
        why = f'write "*{text[start:end]}" for every address, or the port alone for this machine'
        refuse(text, start, "a host is missing", hint=why)
    second = text.find(":", colon + 1, end)
    if second >= 0:
        if all(
            text[position] in _HEX_DIGITS or text[position] in ":."
            for position in range(start, end)
        ):
            refuse(text, start, "an IPv6 address stands in brackets", hint='write "[::1]:8000"')
        refuse(text, second, "there is a colon too many")
    host = EVERY_ADDRESS
    if text[start:colon] != EVERY_ADDRESS:
        host = _parse_host(text, start, colon)
    return host, None, parse_port(text, colon + 1, end)


def _parse_bracketed(text: str, start: int, end: int) -> tuple[str, str | None, int]:
    close = text.find("]", start, end)
    if close < 0:
        refuse(text, start, "this bracket is not closed")
    percent = text.find("%", start, close)
    scope = None
    if percent >= 0:
        scope = text[percent + 1 : close]
        for position in range(percent + 1, close):
            if text[position] not in NAME_CHARACTERS:
                refuse(text, position, "this cannot stand in the name of an interface")
        if not 0 < len(scope) <= _LONGEST_SCOPE:
            why = f"the name of an interface has 1 to {_LONGEST_SCOPE} characters"
            refuse(text, percent + 1, why)
    groups = parse_ipv6(text, start + 1, close if percent < 0 else percent)
    if not text.startswith(":", close + 1, end):
        refuse(text, close + 1, "a port is missing", hint='write "[ADDRESS]:PORT"')
    return describe_ipv6(groups), scope, parse_port(text, close + 2, end)


def _parse_host(text: str, start: int, end: int) -> str:
    """Return the IPv4 address or host name in `text[start:end]`, in lower case."""
    for position in range(start, end):
        if text[position] not in _HOST_CHARACTERS:
            refuse(text, position, "this cannot stand in the name of a host")
    if end - start > _LONGEST_HOST:
        refuse(text, start + _LONGEST_HOST, f"a host has at most {_LONGEST_HOST} characters")
    host = text[start:end].lower()
    labels = host.split(".")
    # A name whose last label is a number would be read by the resolver as an old form of an IPv4
    # address (127.1 is 127.0.0.1), so it has to be a whole one.
    if labels[-1] and (set(labels[-1]) <= DIGITS or labels[-1].startswith("0x")):
        if not is_ipv4(host):
            refuse(text, start, "an IPv4 address is four numbers from 0 to 255")
        return host
    position = start
    for label in labels:
        if not label:
            refuse(text, position, "a part of this host name is empty")
        if len(label) > _LONGEST_LABEL:
            why = f"a part of a host name has at most {_LONGEST_LABEL} characters"
            refuse(text, position + _LONGEST_LABEL, why)
        if label[0] == "-" or label[-1] == "-":
            at = position if label[0] == "-" else position + len(label) - 1
            refuse(text, at, "a part of a host name neither begins nor ends with a hyphen")
        position += len(label) + 1
    return host


def is_ipv4(host: str) -> bool:
    """Whether *host* is an IPv4 address: four decimal bytes, without leading zeros."""
    parts = host.split(".")
    return len(parts) == 4 and all(  # noqa: PLR2004 - the four bytes of an IPv4 address
        part in _BYTES for part in parts
    )


def parse_ipv6(text: str, start: int, end: int) -> tuple[int, ...]:
    """Return the eight groups of the IPv6 address in `text[start:end]`.

    Our own, because `ipaddress` costs an import of 2 to 3 ms before every start of a service on
    `[::1]:8000`, and does not say which character is wrong.

    Source: RFC 4291 section 2.2.
    """
    gap = text.find("::", start, end)
    if gap < 0:
        groups = _parse_groups(text, start, end)
        if len(groups) != _GROUPS:
            refuse(text, start, "an IPv6 address has eight groups")
        return tuple(groups)
    second = text.find("::", gap + 1, end)
    if second >= 0:
        refuse(text, second, 'there is a second "::"')
    dot = text.find(".", start, gap)
    if dot >= 0:
        refuse(text, dot, "an IPv4 address can only be the end of an IPv6 address")
    before = _parse_groups(text, start, gap) if gap > start else []
    after = _parse_groups(text, gap + 2, end) if gap + 2 < end else []
    missing = _GROUPS - len(before) - len(after)
    if missing < 1:
        refuse(text, start, "an IPv6 address has eight groups")
    return (*before, *([0] * missing), *after)


def _parse_groups(text: str, start: int, end: int) -> list[int]:
    """Return the groups of `text[start:end]`, the last two of which may be an IPv4 address."""
    groups: list[int] = []
    position = start
    while True:
        colon = text.find(":", position, end)
        stop = end if colon < 0 else colon
        if colon < 0 and "." in text[position:stop]:
            if not is_ipv4(text[position:stop]):
                refuse(text, position, "an IPv4 address is four numbers from 0 to 255")
            high, middle, low, least = (int(part) for part in text[position:stop].split("."))
            return [*groups, high << 8 | middle, low << 8 | least]
        groups.append(_parse_group(text, position, stop))
        if colon < 0:
            return groups
        position = colon + 1


def _parse_group(text: str, start: int, end: int) -> int:
    for position in range(start, end):
        if text[position] not in _HEX_DIGITS:
            refuse(text, position, "this cannot stand in an IPv6 address")
    if not 0 < end - start <= 4:  # noqa: PLR2004 - sixteen bits
        refuse(text, start, "a group of an IPv6 address has one to four digits")
    return int(text[start:end], 16)


def describe_ipv6(groups: tuple[int, ...]) -> str:
    """Return the one canonical text of an IPv6 address: lower case, its longest zeros as `::`.

    Source: RFC 5952 section 4.
    """
    if groups[:5] == (0, 0, 0, 0, 0) and groups[5] == 0xFFFF:  # noqa: PLR2004 - ::ffff:0:0/96
        return "::ffff:" + ".".join(
            str(byte) for group in groups[6:] for byte in (group >> 8, group & 255)
        )
    first, longest = 0, 1  # a single zero group stays as it is
    for start in range(_GROUPS):
        length = 0
        while start + length < _GROUPS and groups[start + length] == 0:
            length += 1
        if length > longest:
            first, longest = start, length
    words = [f"{group:x}" for group in groups]
    if longest == 1:
        return ":".join(words)
    return ":".join(words[:first]) + "::" + ":".join(words[first + longest :])


def unescape(text: str, start: int, end: int, *, most: int, what: str) -> str:
    """Return `text[start:end]` with each %XX turned into its byte, as a file name is decoded.

    Bytes that are not UTF-8 become lone surrogates (PEP 383), as everywhere in Python.
    """
    found = bytearray()
    position = start
    while position < end:
        here = position
        if text[position] == "%":
            digits = text[position + 1 : min(position + 3, end)]
            if len(digits) != 2 or not set(digits) <= _HEX_DIGITS:  # noqa: PLR2004 - one byte
                refuse(text, position, 'two hexadecimal digits follow a "%" ("%25" is a "%")')
            found.append(int(digits, 16))
            position += 3
        else:
            try:
                found += text[position].encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                refuse(text, position, "this is not a character")
            position += 1
        if found[-1] == 0:
            refuse(text, here, f"{what} holds no zero byte")
        if len(found) > most:
            refuse(text, here, f"{what} has at most {most} bytes")
    return found.decode("utf-8", "surrogateescape")


def escape(value: str, *, safe: frozenset[str] | None = None) -> str:
    """Return *value* so that `unescape` gives it back; *safe* characters stand for themselves.

    Without *safe*: everything printable but space, `%` and `?`.
    """
    return "".join(
        c
        if (c in safe if safe is not None else c.isprintable() and c not in " %?")
        else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in value
    )


def parse_name(text: str, start: int, end: int) -> str:
    """Return the name in `text[start:end]`, which systemd would accept for a descriptor.

    Source: FDNAME= in sd_notify(3): ASCII, no control character, no colon, at most 255 bytes.
    """
    if start == end:
        refuse(text, start, "a name is missing")
    name = unescape(text, start, end, most=_LONGEST_NAME, what="a name")
    if not all(" " <= c <= "~" and c != ":" for c in name):
        refuse(text, start, "a name holds printable ASCII characters and no colon")
    return name
