"""What goes over the control socket, as bytes and values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.control import protocol
from forkfirst.errors import ForkfirstError
from support.child_program import run_child

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), _VALUES))
def test_a_message_survives_the_wire(message: dict[str, object]) -> None:
    """Whatever a program puts into its status must arrive as it was."""
    assert protocol.decode(protocol.encode(message)) == message


@given(st.dictionaries(st.text(), _VALUES))
def test_a_line_feed_only_ends_a_message(message: dict[str, object]) -> None:
    """A status text of two lines would otherwise be two messages."""
    line = protocol.encode(message)
    assert line.index(b"\n") == len(line) - 1
    assert line.isascii()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_clear_error(line: bytes) -> None:
    """A reader that fails in another way than it says is a reader that can be ended."""
    try:
        message = protocol.decode_request(line)
    except ForkfirstError:
        return
    assert isinstance(message["ask"], str)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b"", "not JSON at character 0: expecting value"),
        (b'{"ask": "sta', "not JSON at character 8: unterminated string starting at"),
        (b"[1]", "not a JSON object but list"),
        (b'{"ask": 1' + b"0" * 5000 + b"}", "not JSON that can be read: "),
        (b"{}", 'a request has no "ask", which must be a text'),
        (b'{"ask": 7}', 'a request has no "ask", which must be a text'),
        (b"[" * 600, "a request has more than 500 brackets"),
        (b" " * (protocol.MAX_REQUEST + 1), "a request is longer than 65536 bytes"),
    ],
)
def test_what_is_no_request_is_named(line: bytes, reason: str) -> None:
    """Who writes a client of their own learns from the answer what is wrong with it."""
    with pytest.raises(ForkfirstError) as caught:
        protocol.decode_request(line)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("value", [object(), float, {1, 2}])
def test_what_json_has_not_is_an_error(value: object) -> None:
    """A status that cannot be sent is the program's mistake, and is said."""
    with pytest.raises(ForkfirstError, match="cannot put a message into JSON"):
        protocol.encode({"value": value})


def test_a_message_is_bounded() -> None:
    """The other side reads no more than that."""
    whole = protocol.encode({"a": "b"}, limit=10)
    assert len(whole) == 10
    with pytest.raises(ForkfirstError, match="a message of 11 bytes is longer than 10"):
        protocol.encode({"a": "bb"}, limit=10)


_DEEP = """
import sys, threading
from forkfirst.control import protocol
from forkfirst.errors import ForkfirstError

def read():
    try:
        getattr(protocol, sys.argv[1])(b"[" * 60000)
    except ForkfirstError:
        print("refused")

threading.stack_size(256 * 1024)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


def _read_deep_nesting(reader: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", _DEEP, reader]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)


def test_a_deep_request_cannot_overflow_the_stack_of_the_thread() -> None:
    """64 KiB of brackets must not be able to end a service."""
    done = _read_deep_nesting("decode_request")
    assert (done.returncode, done.stdout) == (0, "refused\n")


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="3.11 and 3.14 count the real depth")
def test_without_the_bound_on_brackets_it_would() -> None:
    """The bound is no superstition: the C parser of CPython 3.13 recurses until it faults."""
    assert _read_deep_nesting("decode").returncode < 0


def test_the_path_to_ready_does_not_load_json() -> None:
    """It costs up to 6 ms, and a start has 3 for everything."""
    program = (
        "import sys; loaded = set(sys.modules); "
        "import forkfirst.control.server, forkfirst.control.client; "
        "print(str(sorted(set(sys.modules) - loaded)).replace(chr(39), chr(34)))"
    )
    costly = {"json", "socket", "threading", "typing", "selectors", "re", "enum", "dataclasses"}
    assert costly.intersection(run_child(program)) == set()


def test_a_short_path_is_its_own_address() -> None:
    """What the kernel takes as it is needs no detour."""
    assert protocol.open_address("/run/web.sock") == ("/run/web.sock", None)


def test_a_long_path_is_reached_through_its_directory(tmp_path: Path) -> None:
    """A home directory may be deep, and 108 bytes are soon used."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    address, descriptor = protocol.open_address(str(directory / "web.sock"))
    assert descriptor is not None
    try:
        assert len(address) < protocol.MAX_SOCKET_PATH
        (directory / "web.sock").write_text("here")
        assert Path(address).read_text() == "here"
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_a_name_that_is_too_long_by_itself_is_an_error(tmp_path: Path) -> None:
    """There is no shorter way to it, and a name cut short would be another service's."""
    with pytest.raises(OSError, match="longer than a socket's address may be"):
        protocol.open_address(str(tmp_path / ("n" * 120)))


def test_the_limit_is_the_kernels(tmp_path: Path) -> None:
    """One byte more than is true, and the longest paths would fail at bind."""
    import socket  # noqa: PLC0415 - only here

    exact = str(tmp_path) + "/" + "n" * (protocol.MAX_SOCKET_PATH - len(str(tmp_path)) - 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(exact)
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(OSError, match="too long"):
        listener.bind(exact + "n")


def test_json_of_this_module_is_json() -> None:
    """Any language's client can talk to a service."""
    assert json.loads(protocol.encode({"ok": True, "pid": 7})) == {"ok": True, "pid": 7}
