"""The grammar of addresses: one text form for each listener, and a caret for everything else."""

from __future__ import annotations

import ipaddress
import re
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forkfirst.errors import AddressError, ConfigError
from forkfirst.plan.address import NAME_CHARACTERS, describe_ipv6, parse_ipv6
from forkfirst.plan.listener import (
    KINDS,
    LONGEST_PATH,
    Listener,
    ListenerOptions,
    describe_address,
    parse_address,
    parse_listener,
    split_name,
)

# -- listeners as they can be ---------------------------------------------------------------------

FLAGS = st.none() | st.booleans()
BACKLOGS = st.none() | st.integers(1, 2**31 - 1)
PORTS = st.integers(0, 65535)
ANY_CHARACTER = st.characters(exclude_characters="\0", exclude_categories=())
FD_NAMES = st.text(st.sampled_from([chr(c) for c in range(32, 127) if chr(c) != ":"]), min_size=1)
ACCOUNTS = st.none() | FD_NAMES


def _as_file_name(text: str) -> str:
    """Return *text* as os.fsdecode gives names: bytes that are no UTF-8 are lone surrogates."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def _fits(text: str) -> bool:
    return 0 < len(text.encode("utf-8", "surrogateescape")) <= LONGEST_PATH


FILE_NAMES = st.text(ANY_CHARACTER, min_size=1, max_size=60).map(_as_file_name).filter(_fits)
PATHS = FILE_NAMES.map(lambda name: f"/{name}").filter(lambda p: _fits(p) and p[-1] != "/")
LABELS = st.from_regex(r"[a-z_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
HOST_NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join) | st.sampled_from(KINDS)
IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(lambda address: describe_ipv6(_groups(str(address))))
SCOPES = st.text(st.sampled_from(sorted(NAME_CHARACTERS)), min_size=1, max_size=15)


def _groups(address: str) -> tuple[int, ...]:
    packed = ipaddress.IPv6Address(address).packed
    return tuple(int.from_bytes(packed[i : i + 2], "big") for i in range(0, 16, 2))


@st.composite
def internet_listeners(draw: st.DrawFn) -> Listener:
    kind = draw(st.sampled_from(["tcp", "udp"]))
    host = draw(IPV4 | IPV6 | HOST_NAMES | st.just("*"))
    may_be_ipv6 = host != "*" and not host.replace(".", "").isdigit()
    tcp = kind == "tcp"
    options = ListenerOptions(
        backlog=draw(BACKLOGS) if tcp else None,
        ipv6only=draw(FLAGS) if may_be_ipv6 else None,
        reuseport=draw(FLAGS),
        nodelay=draw(FLAGS) if tcp else None,
        keepalive=draw(FLAGS) if tcp else None,
        deferaccept=draw(BACKLOGS) if tcp else None,
        freebind=draw(FLAGS),
    )
    scope = draw(st.none() | SCOPES) if ":" in host else None
    return Listener(
        name=draw(FD_NAMES), kind=kind, host=host, scope=scope, port=draw(PORTS), options=options
    )


@st.composite
def path_listeners(draw: st.DrawFn) -> Listener:
    kind = draw(st.sampled_from(["unix", "unixgram", "seqpacket"]))
    options = ListenerOptions(
        backlog=None if kind == "unixgram" else draw(BACKLOGS),
        mode=draw(st.none() | st.integers(0, 0o777)),
        owner=draw(ACCOUNTS),
        group=draw(ACCOUNTS),
    )
    return Listener(name=draw(FD_NAMES), kind=kind, path=draw(PATHS), options=options)


@st.composite
def other_listeners(draw: st.DrawFn) -> Listener:
    name = draw(FD_NAMES)
    large = st.integers(0, 2**32 - 2)
    references = FD_NAMES.filter(lambda text: not set(text) <= set(string.digits))
    return draw(
        st.sampled_from(["unix", "unixgram", "seqpacket"]).flatmap(
            lambda kind: st.builds(
                Listener, name=st.just(name), kind=st.just(kind), abstract=FILE_NAMES
            )
        )
        | st.builds(
            Listener,
            name=st.just(name),
            kind=st.just("vsock"),
            cid=st.none() | large,
            port=large,
            options=st.builds(ListenerOptions, backlog=BACKLOGS),
        )
        | st.builds(
            Listener,
            name=st.just(name),
            kind=st.just("fd"),
            number=st.integers(0, 2**31 - 1),
        )
        | st.builds(Listener, name=st.just(name), kind=st.just("fd"), reference=references)
        | st.builds(Listener, name=st.just(name), kind=st.just("systemd"), reference=FD_NAMES)
    )


LISTENERS = internet_listeners() | path_listeners() | other_listeners()

PIECES = st.sampled_from(
    [
        *KINDS,
        *":/?&=@*[]%.-,+ ",
        *["//", "::", "0", "1", "80", "65536", "08", "9" * 20, "1.2.3.4", "fe80", "eth0"],
        *["%2", "%3A", "%00", "%ff", "\ud800", "\udcff", "é", "\n"],
        *["web", "localhost", "/run/x", "backlog", "mode", "reuseport", "ipv6only", "owner"],
        *["0660", "yes"],
    ]
)
TEXTS = st.text(ANY_CHARACTER) | st.lists(PIECES, max_size=12).map("".join)


def _attempt(text: str) -> tuple[Listener | None, AddressError | None]:
    try:
        return parse_listener(text), None
    except AddressError as error:
        return None, error


@given(LISTENERS)
@settings(deadline=None)
def test_parse_after_print_is_the_identity(listener: Listener) -> None:
    """What is printed in a status or a file can be given back to mean the same."""
    assert parse_listener(str(listener)) == listener
    assert parse_address(describe_address(listener), name=listener.name) == listener


@given(TEXTS)
@settings(deadline=None, max_examples=500)
@example("")
@example("=")
@example("web=")
@example("8000?")
@example("[")
@example("[::1%]:80")
@example("fd:%33")
@example("9" * 5000)
def test_every_text_is_a_listener_or_an_error_that_points_into_it(text: str) -> None:
    """Nothing a person types, and nothing a fuzzer types, is a traceback."""
    listener, error = _attempt(text)
    if listener is None:
        assert error is not None
        assert error.text == text
        assert 0 <= error.position <= len(text)
        assert str(error).encode("utf-8")  # it can be written anywhere
        return
    printed = str(listener)
    assert parse_listener(printed) == listener
    assert str(parse_listener(printed)) == printed


@given(st.text(st.sampled_from("01fF:.25"), max_size=20) | st.ip_addresses(v=6).map(str))
@settings(deadline=None)
def test_ipv6_addresses_are_those_of_the_standard_library(text: str) -> None:
    """Our parser is there to save an import, not to have an opinion of its own."""
    try:
        expected = ipaddress.IPv6Address(text)
    except ValueError:
        with pytest.raises(AddressError):
            parse_ipv6(text, 0, len(text))
        return
    groups = parse_ipv6(text, 0, len(text))
    assert groups == _groups(text)
    assert ipaddress.IPv6Address(describe_ipv6(groups)) == expected


# -- the forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("8000", "127.0.0.1:8000"),
        ("0", "127.0.0.1:0"),
        ("localhost:8000", "localhost:8000"),
        ("Example.ORG:1", "example.org:1"),
        ("*:80", "*:80"),
        ("[::1]:8000", "[::1]:8000"),
        ("[0:0::0:1]:8000", "[::1]:8000"),
        ("[2001:DB8:0:0:1:0:0:1]:1", "[2001:db8::1:0:0:1]:1"),
        ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.1]:1"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("tcp:8000", "127.0.0.1:8000"),
        ("TCP:[::]:1", "[::]:1"),
        ("tcp:udp:1", "tcp:udp:1"),
        ("udp:53", "udp:127.0.0.1:53"),
        ("udp:*:53", "udp:*:53"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("unix:/a b=c", "unix:/a%20b=c"),
        ("unix:/what%3F", "unix:/what%3F"),
        ("unix:/é", "unix:/é"),
        ("unix:/%C3%A9", "unix:/é"),
        ("unix:/%ff", "unix:/%FF"),
        ("unix:@name", "unix:@name"),
        ("unixgram:/run/log", "unixgram:/run/log"),
        ("seqpacket:@x", "seqpacket:@x"),
        ("vsock:2:80", "vsock:2:80"),
        ("vsock::80", "vsock:*:80"),
        ("vsock:*:80", "vsock:*:80"),
        ("fd:3", "fd:3"),
        ("fd:web", "fd:web"),
        ("systemd:web", "systemd:web"),
        ("systemd://web", "systemd:web"),
        ("systemd:3", "systemd:3"),
        ("unix:/x?mode=660&group=www", "unix:/x?mode=0660&group=www"),
        ("unix:/x?group=www&mode=0660", "unix:/x?mode=0660&group=www"),
        ("8000?reuseport=yes&backlog=64", "127.0.0.1:8000?backlog=64&reuseport=1"),
        ("[::]:80?ipv6only=off", "[::]:80?ipv6only=0"),
        ("web=8000", "web=127.0.0.1:8000"),
        ("tcp=8000", "127.0.0.1:8000"),
        ("web=unix:/a=b", "web=unix:/a=b"),
        ("web=systemd:web", "systemd:web"),
        ("a%20b=fd:3", "a%20b=fd:3"),
    ],
)
def test_each_form_has_one_spelling(text: str, printed: str) -> None:
    """Two spellings of one address would look like two addresses in a status or a diff."""
    assert str(parse_listener(text)) == printed


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("8000", "tcp"),
        ("udp:53", "udp"),
        ("unix:/x", "unix"),
        ("unix:@x", "unix"),
        ("vsock:*:1", "vsock"),
        ("fd:3", "fd"),
        ("fd:web", "web"),
        ("systemd:api.socket", "api.socket"),
        ("api=8000", "api"),
    ],
)
def test_a_listener_without_a_name_is_called_as_its_kind_or_its_reference(
    text: str, name: str
) -> None:
    """Every listener can be asked for by name, also where nobody chose one."""
    assert parse_listener(text).name == name


def test_a_default_name_gives_way_to_a_written_one() -> None:
    """A configuration names its listeners by key; a text that has a name means it."""
    assert parse_listener("8000", default_name="web").name == "web"
    assert parse_listener("api=8000", default_name="web").name == "api"
    assert str(parse_listener("8000", default_name="web")) == "web=127.0.0.1:8000"


def test_a_port_alone_is_this_machine_only() -> None:
    """What is short to type must not offer a service to the network."""
    assert parse_listener("8000").host == "127.0.0.1"


def test_an_equals_sign_of_the_address_is_not_a_name() -> None:
    """A path and an option have `=` too."""
    assert split_name("unix:/a=b") == (None, 0)
    assert split_name("/a=b") == (None, 0)
    assert split_name("8000?backlog=1") == (None, 0)
    assert split_name("web=8000") == ("web", 4)


def test_inherited_listeners_say_so() -> None:
    """They are adopted, never bound."""
    assert parse_listener("fd:3").inherited
    assert parse_listener("systemd:web").inherited
    assert not parse_listener("8000").inherited


def test_a_listener_describes_itself_to_people() -> None:
    """A plan is read by a person before it is run."""
    assert parse_listener("web=8000").describe() == '"web" (tcp) on 127.0.0.1:8000'


# -- the errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("^", "an address is missing"),
        ("web=^", "an address is missing"),
        ("^=8000", "a name is missing"),
        ("web:^http", "a port is a number"),
        ("localhost:^65536", "a port is a number from 0 to 65535"),
        ("localhost:^080", "a port has no leading zero"),
        ("localhost^", "a port is missing"),
        ("localhost:^", "a port is missing"),
        ("^:8000", "a host is missing"),
        ("my^ host:1", "cannot stand in the name of a host"),
        ("^-a:1", "neither begins nor ends with a hyphen"),
        ("a^-.b:1", "neither begins nor ends with a hyphen"),
        ("a.^.b:1", "a part of this host name is empty"),
        ("^127.1:1", "an IPv4 address is four numbers"),
        ("^1.2.3.256:1", "an IPv4 address is four numbers"),
        ("^0x7f000001:1", "an IPv4 address is four numbers"),
        ("^fe80::1:80", "stands in brackets"),
        ("http:^:5000", "a colon too many"),
        ("^http://x:80", "this is a URL"),
        ("^[::1", "this bracket is not closed"),
        ("[::1]^", "a port is missing"),
        ("[^1:2]:3", "eight groups"),
        ("[1::2^::3]:4", 'a second "::"'),
        ("[::^g]:1", "cannot stand in an IPv6 address"),
        ("[::^12345]:1", "one to four digits"),
        ("[fe80::1%^]:1", "1 to 15 characters"),
        ("[fe80::1%et^/h]:1", "cannot stand in the name of an interface"),
        ("unix:^run/x", 'a path begins with "/"'),
        ("unix:/run^/", "this names a directory"),
        ("unix:@^", "an abstract name is missing"),
        ("unix:/a^%zz", "two hexadecimal digits"),
        ("unix:/a^%00", "no zero byte"),
        ("unix:/" + "x" * 106 + "^x", "at most 107 bytes"),
        ("unix:/^\ud800", "not a character"),
        ("vsock:3^", "a port is missing"),
        ("vsock:^x:1", "a CID is a number"),
        ("fd:^", "a name is missing"),
        ("fd:^4294967296", "a descriptor is a number from"),
        ("systemd:^a:b", "no colon"),
        ("8000?^", "an option is missing"),
        ("8000?backlog=1&^", "an option is missing"),
        ("8000?^back=1", "there is no such option"),
        ("8000?backlog^", "a value is missing"),
        ("8000?backlog=^0", "a number from 1 to"),
        ("8000?backlog=1&^backlog=2", "said twice"),
        ("8000?reuseport=^maybe", "is 1 or 0"),
        ("8000?^mode=0600", 'do not take "mode"'),
        ("8000?^ipv6only=1", "this is an IPv4 address"),
        ("*:8000?^ipv6only=1", "both IPv4 and IPv6"),
        ("unix:/x?mode=^0888", "a mode is octal"),
        ("unix:/x?mode=^1777", "a mode is octal"),
        ("unix:@x?^mode=0600", "an abstract socket has no mode"),
        ("fd:3?^backlog=1", "has its options already"),
    ],
)
def test_an_error_points_at_the_character(text: str, why: str) -> None:
    """The `^` in each example is where the caret must be: a person looks there first."""
    position = text.index("^")
    given_text = text.replace("^", "")
    with pytest.raises(AddressError) as caught:
        parse_listener(given_text)
    first, shown, caret = str(caught.value).split("\n")
    assert caught.value.position == position
    assert why in first
    assert caught.value.text == given_text
    # the line may be cut at its left, so that the caret is in sight
    assert given_text.replace("\ud800", "\ufffd").startswith(shown[2:], position + 3 - len(caret))
    assert caret.strip() == "^"


def test_the_message_shows_text_and_caret_one_above_the_other() -> None:
    """It is printed as it is, below the name of the command."""
    with pytest.raises(AddressError) as caught:
        parse_listener("web=127.0.0.1:99999")
    assert str(caught.value) == (
        "not an address: a port is a number from 0 to 65535\n"
        "  web=127.0.0.1:99999\n"
        "                ^"
    )


def test_a_long_text_is_cut_around_the_caret() -> None:
    """A caret after a wrapped line points nowhere."""
    with pytest.raises(AddressError) as caught:
        parse_listener("unix:/" + "x" * 500)
    assert max(len(line) for line in str(caught.value).split("\n")) < 80


def test_control_characters_are_not_echoed() -> None:
    """An address from a file must not steer the terminal that shows the error."""
    with pytest.raises(AddressError) as caught:
        parse_listener("\x1b[2Jhost")
    assert "\x1b" not in str(caught.value)


def test_an_address_error_is_a_configuration_error_and_a_value_error() -> None:
    """The command ends with EX_CONFIG; a library that validates expects ValueError."""
    with pytest.raises(ConfigError):
        parse_listener("?")
    with pytest.raises(ValueError, match="not an address"):
        parse_listener("?")


# -- the reference page ---------------------------------------------------------------------------


def _read_forms() -> list[tuple[str, str]]:
    """Return each address that the page shows, with how it says that it is printed."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "addresses.md"
    table = page.read_text("utf-8").split("## Forms")[1].split("\n\n")[1]
    forms = []
    for row in table.split("\n")[2:]:
        written, _, printed = row.strip("| ").split(" | ")
        for text in re.findall("`([^`…]+)`", written):
            forms += [(text, printed.strip("`") if printed.startswith("`") else text)]
    return forms


@pytest.mark.parametrize(("text", "printed"), _read_forms())
def test_the_reference_page_is_true(text: str, printed: str) -> None:
    """A form that is documented and refused costs somebody an evening."""
    assert str(parse_listener(text)) == printed
