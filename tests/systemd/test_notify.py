"""What a service says to its manager, and that it never waits for it without end."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.systemd.notify import (
    LONGEST_MESSAGE,
    LONGEST_STATUS,
    MOST_FDS,
    Notifier,
    check_name,
    remove_variable,
)
from forkfirst.systemd.notify_address import parse_address
from forkfirst.systemd.notify_delivery import wait_until_taken
from forkfirst.systemd.notify_receiver import open_receiver
from support.child_program import run_child
from support.open_descriptors import list_open_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from forkfirst.systemd.notify_receiver import Receiver


@pytest.fixture(params=["path", "abstract"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    names = {"path": str(tmp_path / "notify"), "abstract": f"@forkfirst-{os.getpid()}-{tmp_path}"}
    with open_receiver(names[request.param]) as opened:
        yield opened


@pytest.fixture
def notifier(receiver: Receiver) -> Notifier:
    made = Notifier.from_environment({"NOTIFY_SOCKET": receiver.address})
    assert made is not None
    return made


SAID: list[tuple[Callable[[Notifier], None], dict[str, str]]] = [
    (lambda to: to.ready(), {"READY": "1"}),
    (lambda to: to.ready("serving"), {"READY": "1", "STATUS": "serving"}),
    (lambda to: to.reloading(77), {"RELOADING": "1", "MONOTONIC_USEC": "77"}),
    (lambda to: to.stopping("draining"), {"STOPPING": "1", "STATUS": "draining"}),
    (lambda to: to.status("à 66 %"), {"STATUS": "à 66 %"}),
    (lambda to: to.errno(errno.ENOENT), {"ERRNO": "2"}),
    (lambda to: to.bus_error("org.example.No"), {"BUSERROR": "org.example.No"}),
    (lambda to: to.varlink_error("org.example.No"), {"VARLINKERROR": "org.example.No"}),
    (lambda to: to.exit_status(75), {"EXIT_STATUS": "75"}),
    (lambda to: to.mainpid(4711), {"MAINPID": "4711"}),
    (lambda to: to.mainpid(4711, pidfd_id=9), {"MAINPID": "4711", "MAINPIDFDID": "9"}),
    (lambda to: to.watchdog(), {"WATCHDOG": "1"}),
    (lambda to: to.watchdog_trigger(), {"WATCHDOG": "trigger"}),
    (lambda to: to.watchdog_usec(20_000_000), {"WATCHDOG_USEC": "20000000"}),
    (lambda to: to.extend_timeout(1.5), {"EXTEND_TIMEOUT_USEC": "1500000"}),
    (lambda to: to.remove_stored("state"), {"FDSTOREREMOVE": "1", "FDNAME": "state"}),
    (lambda to: to.notify_access("all"), {"NOTIFYACCESS": "all"}),
    (lambda to: to.restart_reset(), {"RESTART_RESET": "1"}),
    (lambda to: to.send("X_OURS=1\nY=a=b"), {"X_OURS": "1", "Y": "a=b"}),
]


@pytest.mark.parametrize(("say", "fields"), SAID, ids=[",".join(said[1]) for said in SAID])
def test_each_word_of_the_protocol_is_said_as_the_manual_has_it(
    say: Callable[[Notifier], None],
    fields: dict[str, str],
    notifier: Notifier,
    receiver: Receiver,
) -> None:
    """A manager ignores what it does not know, so a wrong word would be silence."""
    say(notifier)
    message = receiver.receive()
    assert message is not None
    assert (message.pid, message.fields, message.fds) == (os.getpid(), fields, ())
    assert receiver.receive() is None


def test_a_reload_is_stamped_with_the_monotonic_clock(
    notifier: Notifier, receiver: Receiver
) -> None:
    """Without the stamp `systemctl reload` of a notify-reload service waits until it gives up."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    message = receiver.receive()
    assert message is not None
    assert before <= int(message.fields["MONOTONIC_USEC"]) <= after


def test_descriptors_travel_and_stay_open_here(notifier: Notifier, receiver: Receiver) -> None:
    """The store holds copies; the service goes on with its own."""
    fds = [os.memfd_create(f"state{number}") for number in range(3)]
    try:
        notifier.store(fds, "state", poll=False)
        message = receiver.receive()
        assert message is not None
        assert message.fields == {"FDSTORE": "1", "FDNAME": "state", "FDPOLL": "0"}
        for ours, theirs in zip(fds, message.fds, strict=True):
            assert os.path.samestat(os.fstat(ours), os.fstat(theirs))
            assert not os.get_inheritable(theirs)
            os.close(theirs)
    finally:
        for fd in fds:
            os.close(fd)


def test_a_new_main_process_is_named_by_its_pidfd(notifier: Notifier, receiver: Receiver) -> None:
    """A pid alone may be somebody else's by the time that the manager reads it."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        notifier.mainpid(os.getpid(), pidfd=pidfd)
    finally:
        os.close(pidfd)
    message = receiver.receive()
    assert message is not None
    assert message.fields == {"MAINPID": str(os.getpid()), "MAINPIDFD": "1"}
    assert len(message.fds) == 1
    os.close(message.fds[0])


def test_more_descriptors_than_the_kernel_takes_are_refused(
    notifier: Notifier, receiver: Receiver
) -> None:
    """The kernel would say only "invalid argument"."""
    with pytest.raises(errors.UsageError, match="253 is the most"):
        notifier.store([0] * (MOST_FDS + 1), "too-many")
    notifier.store([0] * MOST_FDS, "just-enough")
    message = receiver.receive()
    assert message is not None
    assert len(message.fds) == MOST_FDS
    for fd in message.fds:
        os.close(fd)


@given(st.text(max_size=300))
def test_a_status_is_one_line_and_injects_nothing(text: str) -> None:
    """What a program shows may come from outside; READY=1 in it must stay text."""
    with open_receiver(f"@forkfirst-status-{os.getpid()}") as receiver:
        Notifier(receiver.address).status(f"a\nREADY=1\n{text}")
        message = receiver.receive()
    assert message is not None
    assert list(message.fields) == ["STATUS"]


@given(st.text(min_size=500, max_size=3000))
def test_a_long_status_is_cut_between_characters(text: str) -> None:
    """Systemd drops a whole message that is too long, and ignores a status that is not UTF-8."""
    with open_receiver(f"@forkfirst-status-{os.getpid()}") as receiver:
        Notifier(receiver.address).ready("ä" + text)
        message = receiver.receive()
    assert message is not None
    assert message.fields["READY"] == "1"
    assert len(message.fields["STATUS"].encode("utf-8")) <= LONGEST_STATUS


@given(st.text(max_size=300))
def test_a_name_is_one_that_systemd_would_keep_or_refused(name: str) -> None:
    """Systemd ignores any other without a word and calls the descriptor "stored"."""
    keeps = 1 <= len(name) <= 255 and all(32 <= ord(c) < 127 and c != ":" for c in name)
    if keeps:
        assert check_name(name) == name
        return
    with pytest.raises(errors.UsageError):
        check_name(name)


@pytest.mark.parametrize(
    "say",
    [
        lambda to: to.send("X=" + "x" * LONGEST_MESSAGE),
        lambda to: to.send("X=\0"),
        lambda to: to.extend_timeout(0),
        lambda to: to.extend_timeout(-1),
        lambda to: to.notify_access("some"),
        lambda to: to.store([0], "a:b"),
        lambda to: to.remove_stored(""),
    ],
)
def test_what_a_manager_would_ignore_is_refused_here(
    say: Callable[[Notifier], None], notifier: Notifier, receiver: Receiver
) -> None:
    """An ignored message is noticed in production; a refused one, in a test."""
    with pytest.raises(errors.UsageError):
        say(notifier)
    assert receiver.receive() is None


def test_a_barrier_returns_when_everything_before_was_read() -> None:
    """A helper that exits at once would else leave messages that belong to nobody."""
    program = """
import json, os, sys
from forkfirst.systemd.notify import Notifier
from forkfirst.systemd.notify_receiver import open_receiver
receiver = open_receiver(f"@forkfirst-barrier-{os.getpid()}")
pid = os.fork()
if pid == 0:
    notifier = Notifier(receiver.address)
    notifier.status("first")
    notifier.barrier(30)
    os._exit(7)
os.set_blocking(receiver.fileno(), True)
first = receiver.receive()
still_there = os.waitpid(pid, os.WNOHANG)
second = receiver.receive()
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
mine = first.pid == pid
print(json.dumps([first.fields, mine, still_there[0], second.fields, second.fds, status]))
"""
    told = run_child(program)
    assert told == [{"STATUS": "first"}, True, 0, {"BARRIER": "1"}, [], 7]


def test_a_barrier_gives_up_on_a_manager_that_does_not_read(notifier: Notifier) -> None:
    """A stuck manager must not make the service stick."""
    with pytest.raises(errors.StuckError, match=r"in 0\.05 s"):
        notifier.barrier(0.05)


def test_a_full_queue_is_waited_for_no_longer_than_was_said(receiver: Receiver) -> None:
    """Libsystemd waits for ever here: its socket blocks (shown by the last lines)."""
    notifier = Notifier(receiver.address, timeout=0.05)

    def fill() -> None:
        for _ in range(100_000):
            notifier.watchdog()

    with pytest.raises(errors.StuckError, match="took no message") as caught:
        fill()
    assert isinstance(caught.value.__cause__, TimeoutError)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as careless:
        careless.settimeout(0)
        with pytest.raises(BlockingIOError):  # that is, a blocking one would now wait
            careless.sendto(b"WATCHDOG=1", parse_address(receiver.address).target)


def test_a_manager_that_has_gone_is_an_error_with_its_cause(tmp_path: Path) -> None:
    """Whether a service goes on without its manager is not for this module to decide."""
    notifier = Notifier(str(tmp_path / "nobody"))
    with pytest.raises(errors.SystemRefusedError, match="no such file") as caught:
        notifier.ready()
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_threads_may_notify_at_once(notifier: Notifier, receiver: Receiver) -> None:
    """The control thread, the watchdog and the program all speak; no word may be torn."""

    def speak(number: int) -> None:
        for count in range(20):
            notifier.status(f"{number}-{count}-" + "x" * 500)

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    heard: dict[str, list[int]] = {}
    os.set_blocking(receiver.fileno(), True)
    for _ in range(8 * 20):
        message = receiver.receive()
        assert message is not None
        number, count, rest = message.fields["STATUS"].split("-")
        assert rest == "x" * 500
        heard.setdefault(number, []).append(int(count))
    for thread in threads:
        thread.join()
    assert all(counts == list(range(20)) for counts in heard.values())


def test_notifying_leaves_no_descriptor_behind(notifier: Notifier, receiver: Receiver) -> None:
    """A watchdog is fed for years."""
    before = list_open_descriptors()
    for say, _ in SAID:
        say(notifier)
        receiver.receive()
    with pytest.raises(errors.StuckError):
        notifier.barrier(0.01)
    receiver.receive()
    assert list_open_descriptors() == before


def test_without_a_socket_in_the_environment_there_is_no_notifier() -> None:
    """Most services run under no such manager, and that is no error."""
    assert Notifier.from_environment({}) is None
    assert Notifier.from_environment({"NOTIFY_SOCKET": ""}) is None


def test_the_variable_is_removed_only_when_asked() -> None:
    """A command that we start may have to speak for us; usually no child should."""
    environ = {"NOTIFY_SOCKET": "/run/notify", "HOME": "/"}
    Notifier.from_environment(environ)
    assert "NOTIFY_SOCKET" in environ
    remove_variable(environ)
    remove_variable(environ)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    ("text", "target", "forms"),
    [
        ("/run/systemd/notify", b"/run/systemd/notify", ("dgram",)),
        ("@org/example", b"\0org/example", ("dgram",)),
        ("@" + "a" * 107, b"\0" + b"a" * 107, ("dgram",)),
        ("vsock:2:1234", (2, 1234), ("dgram", "seqpacket", "stream")),
        ("vsock-stream:2:1234", (2, 1234), ("stream",)),
        ("vsock-dgram:2:1234", (2, 1234), ("dgram",)),
        ("vsock-seqpacket:0x2:1234", (2, 1234), ("seqpacket",)),
    ],
)
def test_an_address_of_each_sort_is_understood(
    text: str, target: object, forms: tuple[str, ...]
) -> None:
    """A path, a name, and what a virtual machine's manager is told."""
    address = parse_address(text)
    assert (address.target, address.forms) == (target, forms)


@pytest.mark.parametrize(
    "text",
    [
        *("", "notify", "./notify", "@", "/" + "a" * 107, "@" + "a" * 108, "/a\0b"),
        *("vsock::1234", "vsock:2", "vsock:2:", "vsock:x:1", "vsock:2:x", "vsock:4294967295:1"),
        *("vsock:-1:1", "vsock-raw:2:1", "tcp:127.0.0.1:80", "vsock:2:4294967296"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """It would be found out at READY, when the service is up and the manager kills it."""
    with pytest.raises(errors.ConfigError, match="NOTIFY_SOCKET="):
        parse_address(text)


def test_over_a_connection_the_end_is_waited_for() -> None:
    """A vsock has no datagrams everywhere: the message ends where the stream does, and the other
    side says by closing that it has it all. Shown on a unix stream, for want of a hypervisor.
    """  # noqa: D205 - two sentences of one reason
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.05)
        ours.sendall(b"READY=1")
        with pytest.raises(TimeoutError):
            wait_until_taken(ours)
        assert theirs.recv(100) == b"READY=1"
        assert theirs.recv(100) == b""
        theirs.close()
        wait_until_taken(ours)


def test_an_answer_over_a_connection_breaks_the_protocol() -> None:
    """Who answers is not a service manager."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"hello")
        with pytest.raises(OSError, match="not in the protocol"):
            wait_until_taken(ours)


def test_a_virtual_machine_without_a_host_that_listens_is_an_error() -> None:
    """The notification fails within the limit, whatever this kernel has of vsock."""
    notifier = Notifier("vsock:2:9", timeout=0.1)
    with pytest.raises((errors.SystemRefusedError, errors.StuckError)):
        notifier.ready()
