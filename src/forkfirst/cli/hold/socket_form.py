"""What `listen -s` takes: our own grammar of addresses, and every form that systemfd knows.

systemfd writes TYPE::SPEC, with http and https for a TCP socket that is shown as a URL, and takes
whatever has a slash in it for a unix path, also one that is relative.
"""

from __future__ import annotations

from forkfirst.plan import listener as listeners
from forkfirst.plan.address import escape, refuse
from forkfirst.values import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.listener import Listener

_SHOWN_AS_URL = ("http", "https")
_INTERNET_TYPES = ("tcp", *_SHOWN_AS_URL)
_TYPES = (*_INTERNET_TYPES, "udp", *listeners.PATH_KINDS)
_LISTENING = ("tcp", "unix", "seqpacket", "vsock")


class WantedSocket(Value):
    """One `-s` as it is meant.

    Attributes:
        listener: What to open.
        scheme: "http" or "https" if it is to be shown as a URL, else "".
    """

    listener: Listener
    scheme: str = ""


def parse_socket(text: str, *, directory: str, backlog: int | None = None) -> WantedSocket:
    """Return what `[NAME=][TYPE::]SPEC` or `[NAME=]ADDRESS` asks for.

    Args:
        text: As it was given.
        directory: What a relative unix path is below.
        backlog: Of those that take one and do not say it themselves.

    Raises:
        AddressError: It is neither; the error points at the character.
    """
    name, start = listeners.split_name(text)
    kind, at = _split_type(text, start)
    scheme = kind if kind in _SHOWN_AS_URL else ""
    if kind in _INTERNET_TYPES:
        found = listeners.parse_address(text, start=at, name=kind if name is None else name)
        if found.kind != "tcp":
            refuse(text, at, f'after "{kind}::" comes a port, HOST:PORT or [V6]:PORT')
    else:
        found = listeners.parse_listener(text[:start] + _rewrite(kind, text[at:], directory))
    if backlog is not None and found.kind in _LISTENING and found.options.backlog is None:
        found = replace(found, options=replace(found.options, backlog=backlog))
    return WantedSocket(listener=found, scheme=scheme)


def _split_type(text: str, start: int) -> tuple[str, int]:
    """Return the TYPE of `TYPE::SPEC`, or "", and where the rest begins."""
    end = text.find("::", start)
    word = text[start:end].lower() if end >= 0 else ""
    return (word, end + 2) if word in _TYPES else ("", start)


def _rewrite(kind: str, address: str, directory: str) -> str:
    """Return *address* of the type *kind* (or of none) in our grammar, every path absolute."""
    if not kind:
        word, colon, rest = address.partition(":")
        if colon and word.lower() in listeners.PATH_KINDS:
            kind, address = word, rest
        elif "/" in word.partition("?")[0] and not word.startswith("/"):
            kind = "unix"
        else:
            return address
    if kind.lower() in listeners.PATH_KINDS and address and address[0] not in "/@":
        address = f"{escape(directory).rstrip('/')}/{address.removeprefix('./')}"
    return f"{kind}:{address}"
