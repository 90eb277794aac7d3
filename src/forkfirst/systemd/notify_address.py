"""Where a service manager takes messages: the grammar of NOTIFY_SOCKET."""

from __future__ import annotations

from forkfirst import errors
from forkfirst.systemd.integers import parse_integer
from forkfirst.values import Value

_LONGEST_PATH = 107  # of sockaddr_un, with the NUL that a path needs and a name does not
_ANY_CID = 2**32 - 1
# A hypervisor that has no datagrams over vsock says ENODEV; systemd then tries these in order.
_FORMS = {
    "vsock": ("dgram", "seqpacket", "stream"),
    "vsock-dgram": ("dgram",),
    "vsock-seqpacket": ("seqpacket",),
    "vsock-stream": ("stream",),
}


class Address(Value):
    """An address that messages can be sent to.

    Attributes:
        target: What connect(2) wants: octets for a unix socket, (CID, port) for vsock.
        is_vsock: Whether it is the latter.
        forms: The types of socket to try, in order.
    """

    target: bytes | tuple[int, int]
    is_vsock: bool = False
    forms: tuple[str, ...] = ("dgram",)


def parse_address(text: str) -> Address:
    """Parse what NOTIFY_SOCKET says: `/path`, `@abstract`, or `vsock:CID:PORT`.

    Raises:
        ConfigError: It is none of these; a relative path, or `vsock::PORT`, is neither.

    Source: sd_notify(3), NOTES; vsock(7).
    """
    if text.startswith(("/", "@")):
        octets = text.encode("utf-8", "surrogateescape")
        if b"\0" in octets or len(octets) > _LONGEST_PATH + (text[0] == "@"):
            raise _no_address(text, "too long for a unix socket")
        if octets == b"@":
            raise _no_address(text, "a name is missing after the @")
        return Address(target=b"\0" + octets[1:] if text[0] == "@" else octets)
    form, _, rest = text.partition(":")
    if form not in _FORMS:
        raise _no_address(text, "neither an absolute path, an @name nor a vsock")
    cid_text, _, port_text = rest.partition(":")
    cid = parse_integer(cid_text, 0, _ANY_CID - 1)
    port = parse_integer(port_text, 0, 2**32 - 2)
    if cid is None or port is None:
        raise _no_address(text, "a vsock needs CID:PORT, both numbers of 32 bits")
    return Address(target=(cid, port), is_vsock=True, forms=_FORMS[form])


def _no_address(text: str, why: str) -> errors.ConfigError:
    return errors.ConfigError(f"cannot notify: NOTIFY_SOCKET={text!r} is no address: {why}")
