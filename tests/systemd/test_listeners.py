"""Giving out what was passed: by name or place, once, as what it really is."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from forkfirst import errors
from forkfirst.systemd.activation import Passed
from forkfirst.systemd.listeners import KINDS, Listeners, look_up_nature
from support.child_program import run_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Pass = Callable[..., Listeners]


class Made:
    """One descriptor of every sort that a manager could pass."""

    def __init__(self, place: Path, cleaning: ExitStack) -> None:
        self._cleaning = cleaning
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        self.tcp = self._bound(socket.AF_INET, stream, ("127.0.0.1", 0), listen=True)
        self.tcp6 = self._bound(socket.AF_INET6, stream, ("::1", 0), listen=True)
        self.udp = self._bound(socket.AF_INET, datagram, ("127.0.0.1", 0))
        self.unix = self._bound(socket.AF_UNIX, stream, str(place / "stream"), listen=True)
        self.unixgram = self._bound(socket.AF_UNIX, datagram, str(place / "datagram"))
        self.seqpacket = self._bound(
            socket.AF_UNIX, socket.SOCK_SEQPACKET, str(place / "packet"), listen=True
        )
        self.silent = self._bound(socket.AF_INET, stream, ("127.0.0.1", 0))
        self.client = self._keep(socket.create_connection(self.tcp.getsockname()))
        self.connected = self._keep(self.tcp.accept()[0])
        self.pair, self.other = (self._keep(end) for end in socket.socketpair())
        self.datagram_pair, _ = (
            self._keep(end) for end in socket.socketpair(socket.AF_UNIX, datagram)
        )
        self.file = os.open(place / "file", os.O_RDWR | os.O_CREAT)
        cleaning.callback(os.close, self.file)

    def _bound(
        self, family: int, form: int, address: Any, *, listen: bool = False
    ) -> socket.socket:
        made = self._keep(socket.socket(family, form))
        made.bind(address)
        if listen:
            made.listen()
        return made

    def _keep(self, made: socket.socket) -> socket.socket:
        return self._cleaning.enter_context(made)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with ExitStack() as cleaning:
        yield Made(tmp_path, cleaning)


@pytest.fixture
def pass_on() -> Iterator[Pass]:
    """Pass copies, as a manager does: what is taken or closed is not the manager's own."""
    handed: list[Listeners] = []

    def pass_on(**named: socket.socket | int) -> Listeners:
        fds = [os.dup(each if isinstance(each, int) else each.fileno()) for each in named.values()]
        names = [name.rstrip("_0123456789") for name in named]
        handed.append(
            Listeners(
                Passed(fd=fd, name=name, index=index)
                for index, (fd, name) in enumerate(zip(fds, names, strict=True))
            )
        )
        return handed[-1]

    yield pass_on
    for listeners in handed:
        listeners.close_untaken()


LISTENERS = ["tcp", "tcp6", "udp", "unix", "unixgram", "seqpacket"]


@pytest.mark.parametrize("what", LISTENERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_listener_is_taken_only_as_what_it_is(
    what: str, kind: Any, made: Made, pass_on: Pass
) -> None:
    """A wrong kind is an error that leaves it takeable: the caller may know better now."""
    listeners = pass_on(web=getattr(made, what))
    if kind in (what.rstrip("6"), "any"):
        with listeners.take("web", kind) as taken:
            assert taken.getsockname() == getattr(made, what).getsockname()
            assert not taken.get_inheritable()
        assert listeners.untaken() == ()
        return
    with pytest.raises(errors.ConfigError, match=r"it is a (listening )?[a-z]+ socket"):
        listeners.take("web", kind)
    assert len(listeners.untaken()) == 1
    listeners.take("web").close()


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("connected", "tcp", "it is a connected tcp socket"),
        ("silent", "tcp", "it is a tcp socket that does not listen"),
        ("pair", "unix", "it is a connected unix socket"),
        ("datagram_pair", "unixgram", "it is a connected unixgram socket"),
        ("file", "any", "it is a file, not a socket"),
    ],
)
def test_what_listenfd_mistakes_for_a_listener_is_refused(
    what: str, kind: Any, words: str, made: Made, pass_on: Pass
) -> None:
    """Listenfd 1.0.2 takes a connected socket, an unlistened one, and a socketpair's end."""
    listeners = pass_on(web=getattr(made, what))
    with pytest.raises(errors.ConfigError, match=words):
        listeners.take("web", kind)
    assert len(listeners.untaken()) == 1


def test_a_descriptor_closed_meanwhile_is_refused(made: Made) -> None:
    """Listenfd 1.0.2's `take_raw_fd` hands out whatever has that number by now, or nothing."""
    fd = os.dup(made.tcp.fileno())
    os.close(fd)
    listeners = Listeners([Passed(fd=fd, name="web", index=0)])
    with pytest.raises(errors.ConfigError, match="bad file descriptor"):
        listeners.take("web")
    with pytest.raises(errors.ConfigError, match="bad file descriptor"):
        listeners.take_descriptor("web")


def test_a_socket_is_taken_once(made: Made, pass_on: Pass) -> None:
    """Two owners of one descriptor close it twice, and the second close is somebody else's."""
    listeners = pass_on(web=made.tcp)
    with listeners.take("web", "tcp"):
        for key in ("web", 0):
            with pytest.raises(errors.UsageError, match="was taken already"):
                listeners.take(key)
            with pytest.raises(errors.UsageError, match="was taken already"):
                listeners.take(key, default=None)


def test_sockets_of_one_name_come_in_their_order(made: Made, pass_on: Pass) -> None:
    """Systemd_socket 0.1.3 keeps the last of them and closes the rest; systemd's default name for
    two ListenStream= lines is one name twice.
    """  # noqa: D205 - one sentence of two lines
    listeners = pass_on(web_1=made.tcp, other=made.udp, web_2=made.tcp6)
    assert listeners.names == ("web", "other", "web")
    with listeners.take("web") as first, listeners.take("web") as second:
        assert first.getsockname() == made.tcp.getsockname()
        assert second.getsockname() == made.tcp6.getsockname()


def test_all_of_one_name_are_taken_or_none(made: Made, pass_on: Pass) -> None:
    """A service that got half of its listeners would serve half of its addresses."""
    listeners = pass_on(web_1=made.tcp, web_2=made.udp, web_3=made.tcp6)
    with pytest.raises(errors.ConfigError, match="it is a udp socket"):
        listeners.take_all("web", "tcp")
    assert len(listeners.untaken()) == 3
    for taken in listeners.take_all("web"):
        taken.close()
    assert listeners.untaken() == ()
    assert listeners.take_all("web") == []


def test_what_was_not_passed_is_an_error_or_the_default(made: Made, pass_on: Pass) -> None:
    """The caller decides about binding; a wrong kind is an error even then."""
    listeners = pass_on(web=made.tcp)
    with pytest.raises(errors.ConfigError, match=r"'wbe' was passed .*\(passed: web\)"):
        listeners.take("wbe")
    assert listeners.take("wbe", "tcp", default=None) is None
    assert listeners.take(1, default=None) is None
    with pytest.raises(errors.ConfigError, match="as udp"):
        listeners.take("web", "udp", default=None)
    with pytest.raises(errors.ConfigError, match="passed: nothing"):
        Listeners().take(0)


def test_a_kind_that_does_not_exist_is_the_caller_s_mistake(made: Made, pass_on: Pass) -> None:
    """Or a typo would look like a wrong socket."""
    with pytest.raises(errors.UsageError, match="no kind of socket 'http'"):
        pass_on(web=made.tcp).take("web", "http")  # type: ignore[arg-type]


def test_anything_at_all_can_be_taken_as_a_descriptor(made: Made, pass_on: Pass) -> None:
    """The store gives back memory files and pipes too."""
    listeners = pass_on(stored=made.file)
    fd = listeners.take_descriptor("stored")
    try:
        assert os.path.samestat(os.fstat(fd), os.fstat(made.file))
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_the_kernel_and_python_agree_whether_it_blocks(made: Made, pass_on: Pass) -> None:
    """Python believes that an adopted socket blocks; accept would then raise BlockingIOError."""
    made.tcp.settimeout(0)
    with pass_on(web=made.tcp).take("web") as taken:
        assert taken.gettimeout() == 0.0
    made.tcp6.settimeout(None)
    with pass_on(web=made.tcp6).take("web") as taken:
        assert taken.gettimeout() is None


def test_what_nobody_took_can_be_closed(made: Made, pass_on: Pass) -> None:
    """An old unit's socket that the program knows no more should refuse, not hang."""
    listeners = pass_on(web=made.tcp, old=made.unix)
    with listeners.take("web"):
        closed = listeners.close_untaken()
        assert [each.name for each in closed] == ["old"]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(closed[0].fd)
    assert listeners.close_untaken() == ()


def test_the_one_connection_of_an_accepting_unit_is_given(made: Made, pass_on: Pass) -> None:
    """`Accept=yes` starts an instance for each connection, which is all it gets."""
    connection = pass_on(connection=made.connected).connection()
    assert connection is not None
    with connection:
        connection.sendall(b"hello")
        assert made.client.recv(5) == b"hello"


def test_a_connection_whose_client_has_gone_is_still_one(made: Made, pass_on: Pass) -> None:
    """A client may reset before the instance runs: that is an end of file, not a wrong unit."""
    listeners = pass_on(connection=made.silent)  # as the kernel shows one that was reset
    connection = listeners.connection()
    assert connection is not None
    connection.close()


def test_a_listener_is_no_connection(made: Made, pass_on: Pass) -> None:
    """Else a service would read from a socket that only accepts."""
    listeners = pass_on(web=made.tcp)
    assert listeners.connection() is None
    assert len(listeners.untaken()) == 1


INETD = """
import json, os, socket
from forkfirst.systemd.listeners import Listeners
connection = Listeners().connection()
report = None
if connection is not None:
    with connection:
        report = [connection.fileno() > 2, connection.get_inheritable()]
        connection.sendall(b"through the copy")
os.write(2, json.dumps(report).encode())
"""


def test_inetd_s_connection_is_found_on_standard_input_and_output() -> None:
    """`--inetd` and StandardInput=socket pass it there, without a variable."""
    import subprocess  # noqa: PLC0415 - one test needs the streams themselves
    import sys  # noqa: PLC0415 - as above

    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", INETD],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            timeout=30,
            check=True,
        )
        assert done.stderr == b"[true, false]"
        assert ours.recv(64) == b"through the copy"


def test_standard_streams_that_are_no_connection_are_none() -> None:
    """A terminal, a pipe or /dev/null there is every other service."""
    program = INETD.replace("os.write(2, ", "print(").replace(".encode())", ")")
    assert run_child(program) is None


def test_looking_at_a_descriptor_changes_nothing(made: Made) -> None:
    """It is asked for messages and checks: it must not take, block or close."""
    for what in (*LISTENERS, "connected", "silent", "pair"):
        fd = getattr(made, what).fileno()
        before = os.get_blocking(fd), os.get_inheritable(fd)
        look_up_nature(fd)
        assert (os.get_blocking(fd), os.get_inheritable(fd)) == before


@pytest.mark.skipif(not hasattr(socket, "AF_VSOCK"), reason="no vsock in this Python")
def test_a_vsock_listener_is_a_kind_of_its_own(pass_on: Pass) -> None:
    """It has neither ports that others reach nor a path; code for either would misread it."""
    try:
        vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        pytest.skip(f"no vsock in this kernel: {error}")
    with vsock:
        vsock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        vsock.listen()
        listeners = pass_on(guest=vsock)
        with pytest.raises(errors.ConfigError, match="it is a listening vsock socket"):
            listeners.take("guest", "tcp")
        listeners.take("guest", "vsock").close()
