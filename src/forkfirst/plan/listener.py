"""An address as a value: parsed once at the edge, printed back the same.

The grammar is in docs/reference/addresses.md. The law that a test keeps: for every text, either
`AddressError` points at a character, or `parse_listener(str(listener)) == listener`.

Nothing here looks at the machine: whether a host resolves, a path exists or an interface is up is
found out by whoever opens the socket.
"""

from __future__ import annotations

from forkfirst.plan.address import (
    DIGITS,
    EVERY_ADDRESS,
    NAME_CHARACTERS,
    escape,
    is_ipv4,
    parse_host_and_port,
    parse_name,
    parse_number,
    refuse,
    unescape,
)
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERNET_KINDS = ("tcp", "udp")
PATH_KINDS = ("unix", "unixgram", "seqpacket")
INHERITED_KINDS = ("fd", "systemd")
KINDS = (*INTERNET_KINDS, *PATH_KINDS, "vsock", *INHERITED_KINDS)

LONGEST_PATH = 107  # sun_path of unix(7) has 108 bytes, one of them for the end or the "@"
_LARGEST_INT = 2**31 - 1
_LARGEST_VSOCK = 2**32 - 2  # 2**32 - 1 means "any" there, which is "*" here

# option -> the kinds that take it
_TAKEN_BY: dict[str, tuple[str, ...]] = {
    "backlog": ("tcp", "unix", "seqpacket", "vsock"),
    "ipv6only": INTERNET_KINDS,
    "reuseport": INTERNET_KINDS,
    "nodelay": ("tcp",),
    "keepalive": ("tcp",),
    "deferaccept": ("tcp",),
    "freebind": INTERNET_KINDS,
    "mode": PATH_KINDS,
    "owner": PATH_KINDS,
    "group": PATH_KINDS,
}
_FLAGS = ("ipv6only", "reuseport", "nodelay", "keepalive", "freebind")
_NUMBERS = {"backlog": (1, _LARGEST_INT), "deferaccept": (1, _LARGEST_INT)}
_FLAG_WORDS = {
    "1": True, "yes": True, "true": True, "on": True,
    "0": False, "no": False, "false": False, "off": False,
}  # fmt: skip


class ListenerOptions(Value):
    """What may be said of a listener besides its address; None is the default of the socket.

    Attributes:
        backlog: Connections that may wait to be accepted; the kernel's limit if None.
        ipv6only: Whether an IPv6 socket refuses IPv4; None is yes, except for `*`, which is both.
        reuseport: Whether each worker has a TCP socket of its own; without workers, and of udp,
            whether others may bind the same port too (SO_REUSEPORT). Never if None.
        nodelay: TCP_NODELAY, inherited by each accepted connection.
        keepalive: SO_KEEPALIVE, inherited by each accepted connection.
        deferaccept: Seconds to wait for the first bytes before a connection is given to accept.
        freebind: Whether the address may be one that this machine does not have yet.
        mode: Permission bits of a unix path.
        owner: User, by name or number, who shall own a unix path.
        group: Group, by name or number, that shall own a unix path.
    """

    backlog: int | None = None
    ipv6only: bool | None = None
    reuseport: bool | None = None
    nodelay: bool | None = None
    keepalive: bool | None = None
    deferaccept: int | None = None
    freebind: bool | None = None
    mode: int | None = None
    owner: str | None = None
    group: str | None = None


class Listener(Value):
    """A socket that a service wants, with its name. Make one with `parse_listener`.

    Attributes:
        name: What the program asks for it by; several listeners may have the same.
        kind: One of `KINDS`.
        host: For tcp and udp: an IPv4 or IPv6 address, a host name, or `*`. Otherwise "".
        scope: The interface of a link-local IPv6 *host*, or None.
        port: For tcp, udp and vsock; 0 lets the kernel choose. Otherwise None.
        path: The absolute path of a unix, unixgram or seqpacket socket, or None.
        abstract: Its abstract name without the `@`, or None.
        cid: The context of a vsock; None is any.
        number: The descriptor of `fd:N`, or None.
        reference: The name of a passed descriptor, of `fd:NAME` and `systemd:NAME`, or None.
        options: The rest.
    """

    name: str
    kind: str
    host: str = ""
    scope: str | None = None
    port: int | None = None
    path: str | None = None
    abstract: str | None = None
    cid: int | None = None
    number: int | None = None
    reference: str | None = None
    options: ListenerOptions = ListenerOptions()

    @property
    def inherited(self) -> bool:
        """Whether somebody else opened it, so that it is adopted and not bound."""
        return self.kind in INHERITED_KINDS

    def __str__(self) -> str:
        address = describe_address(self)
        if self.name == _default_name(self.kind, self.reference):
            return address
        return f"{escape(self.name, safe=NAME_CHARACTERS)}={address}"

    def describe(self) -> str:
        """Return the listener in words, for a plan or a status shown to a person."""
        return f'"{self.name}" ({self.kind}) on {describe_address(self)}'


def parse_listener(text: str, *, default_name: str | None = None) -> Listener:
    """Return the listener that `NAME=ADDRESS` or `ADDRESS` asks for.

    Without a name it has *default_name*; without that, the name of the passed descriptor it refers
    to, or else its kind.

    Raises:
        AddressError: The text is no such thing; the error has the position.
    """
    name, start = split_name(text)
    return parse_address(text, start=start, name=default_name if name is None else name)


def split_name(text: str) -> tuple[str | None, int]:
    """Return the NAME of `NAME=ADDRESS`, or None, and where the address begins.

    A name ends before anything that could be part of an address (`:`, `/`, `[`, `*`, `?`), so the
    `=` of a path or of an option is never mistaken for it.

    Raises:
        AddressError: There is an `=` but the name before it is empty or not allowed.
    """
    end = 0
    while end < len(text) and (text[end] in NAME_CHARACTERS or text[end] == "%"):
        end += 1
    if not text.startswith("=", end):
        return None, 0
    return parse_name(text, 0, end), end + 1


def parse_address(text: str, *, start: int = 0, name: str | None = None) -> Listener:
    """Return the listener that the address in `text[start:]` asks for, named *name*.

    Raises:
        AddressError: The text is not an address; positions count from the beginning of *text*.
    """
    query = text.find("?", start)
    end = len(text) if query < 0 else query
    kind, at = _split_kind(text, start, end)
    fields: dict[str, Any]
    if kind in INTERNET_KINDS:
        host, scope, port = parse_host_and_port(text, at, end)
        fields = {"host": host, "scope": scope, "port": port}
    elif kind in PATH_KINDS:
        fields = _parse_path(text, at, end)
    elif kind == "vsock":
        fields = _parse_vsock(text, at, end)
    else:
        fields = _parse_inherited(text, at, end, kind)
    if query >= 0:
        fields["options"] = _parse_options(text, query, kind, fields)
    chosen = _default_name(kind, fields.get("reference")) if name is None else name
    return Listener(name=chosen, kind=kind, **fields)


def describe_address(listener: Listener) -> str:
    """Return the address and options of *listener*, in the one form that is always printed."""
    kind = listener.kind
    if kind in INTERNET_KINDS:
        host = listener.host
        if ":" in host:
            host = f"[{host}%{listener.scope}]" if listener.scope else f"[{host}]"
        # A host that is called as a kind is would be read as the kind.
        prefix = "" if kind == "tcp" and host not in KINDS else f"{kind}:"
        address = f"{prefix}{host}:{listener.port}"
    elif listener.path is not None:
        address = f"{kind}:{escape(listener.path)}"
    elif listener.abstract is not None:
        address = f"{kind}:@{escape(listener.abstract)}"
    elif kind == "vsock":
        address = f"vsock:{'*' if listener.cid is None else listener.cid}:{listener.port}"
    elif listener.number is not None:
        address = f"fd:{listener.number}"
    else:
        address = f"{kind}:{escape(listener.reference or '', safe=NAME_CHARACTERS)}"
    words = _describe_options(listener.options)
    return f"{address}?{'&'.join(words)}" if words else address


def _default_name(kind: str, reference: str | None) -> str:
    return kind if reference is None else reference


def _split_kind(text: str, start: int, end: int) -> tuple[str, int]:
    """Return the kind of the address, and where the rest of it begins."""
    if text.startswith("/", start, end):
        return "unix", start
    colon = text.find(":", start, end)
    word = text[start:colon].lower() if colon >= 0 else ""
    if word in KINDS:
        return word, colon + 1
    if colon > start and text.startswith("://", colon, end):
        kinds = ", ".join(f"{kind}:" for kind in KINDS)
        refuse(text, start, "this is a URL, not an address to listen on", hint=f"kinds: {kinds}")
    return "tcp", start


def _parse_path(text: str, start: int, end: int) -> dict[str, Any]:
    if text.startswith("@", start, end):
        if start + 1 == end:
            refuse(text, end, "an abstract name is missing")
        name = unescape(text, start + 1, end, most=LONGEST_PATH, what="an abstract name")
        return {"abstract": name}
    if not text.startswith("/", start, end):
        # A service changes its directory, so a relative path would soon name something else.
        refuse(text, start, 'a path begins with "/", an abstract name with "@"')
    path = unescape(text, start, end, most=LONGEST_PATH, what="the path of a socket")
    if path.endswith("/"):
        refuse(text, end - 1, "this names a directory")
    return {"path": path}


def _parse_vsock(text: str, start: int, end: int) -> dict[str, Any]:
    colon = text.find(":", start, end)
    if colon < 0:
        refuse(text, end, "a port is missing", hint='write "vsock:CID:PORT" or "vsock:*:PORT"')
    cid = None
    if text[start:colon] not in {"", "*"}:
        cid = parse_number(text, start, colon, "a CID", most=_LARGEST_VSOCK)
    return {"cid": cid, "port": parse_number(text, colon + 1, end, "a port", most=_LARGEST_VSOCK)}


def _parse_inherited(text: str, start: int, end: int, kind: str) -> dict[str, Any]:
    if kind == "systemd" and text.startswith("//", start, end):
        start += 2
    if kind == "fd" and start < end and set(text[start:end]) <= DIGITS:
        return {"number": parse_number(text, start, end, "a descriptor", most=_LARGEST_INT)}
    name = parse_name(text, start, end)
    if kind == "fd" and set(name) <= DIGITS:
        refuse(text, start, "this is a number in disguise", hint=f'write "fd:{name}"')
    return {"reference": name}


def _parse_options(text: str, query: int, kind: str, fields: dict[str, Any]) -> ListenerOptions:
    """Return the options in `text[query:]`, which begins with the `?`."""
    found: dict[str, Any] = {}
    start = query + 1
    while start <= len(text):
        end = text.find("&", start)
        end = len(text) if end < 0 else end
        equals = text.find("=", start, end)
        option = text[start : end if equals < 0 else equals]
        why = _why_not(option, kind, fields)
        if why:
            refuse(text, start, why, hint=_describe_choice(kind))
        if option in found:
            refuse(text, start, f'"{option}" is said twice')
        if equals < 0:
            refuse(text, end, f'a value is missing: "{option}=..."')
        found[option] = _parse_option(text, equals + 1, end, option)
        start = end + 1
    return ListenerOptions(**found)


def _why_not(option: str, kind: str, fields: dict[str, Any]) -> str:
    """Return why *option* cannot be said of this address, or "" if it can."""
    host = str(fields.get("host", ""))
    why = ""
    if option not in _TAKEN_BY:
        why = "there is no such option" if option else "an option is missing"
    elif kind in INHERITED_KINDS:
        why = "a socket that is passed has its options already"
    elif kind not in _TAKEN_BY[option]:
        why = f'{kind} sockets do not take "{option}"'
    elif option in {"mode", "owner", "group"} and fields.get("path") is None:
        why = f"an abstract socket has no {option}"
    elif option == "ipv6only" and host == EVERY_ADDRESS:
        why = f'"{EVERY_ADDRESS}" is both IPv4 and IPv6'
    elif option == "ipv6only" and is_ipv4(host):
        why = "this is an IPv4 address"
    return why


def _describe_choice(kind: str) -> str:
    taken = [option for option, kinds in _TAKEN_BY.items() if kind in kinds]
    return f"{kind} sockets take: {', '.join(taken)}" if taken else ""


def _parse_option(text: str, start: int, end: int, option: str) -> object:
    value = text[start:end]
    if option in _NUMBERS:
        least, most = _NUMBERS[option]
        return parse_number(text, start, end, option, least=least, most=most)
    if option in _FLAGS:
        if value not in _FLAG_WORDS:
            refuse(text, start, f'"{option}" is 1 or 0')
        return _FLAG_WORDS[value]
    if option == "mode":
        if not 0 < len(value) <= 4 or not set(value) <= set("01234567") or int(value, 8) > 0o777:  # noqa: PLR2004 - a zero and three octal digits
            refuse(text, start, "a mode is octal, from 0000 to 0777")
        return int(value, 8)
    # owner or group
    return parse_name(text, start, end)


def _describe_options(options: ListenerOptions) -> list[str]:
    words = []
    for option in _TAKEN_BY:
        value = getattr(options, option)
        if value is None:
            continue
        if option in _FLAGS:
            words.append(f"{option}={value:d}")
        elif option == "mode":
            words.append(f"mode={value:04o}")
        elif option in _NUMBERS:
            words.append(f"{option}={value}")
        else:
            words.append(f"{option}={escape(value, safe=NAME_CHARACTERS)}")
    return words
