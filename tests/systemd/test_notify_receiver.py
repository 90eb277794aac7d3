"""What a launcher hears from a command that it started, and from whom."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.systemd.notify import Notifier
from forkfirst.systemd.notify_receiver import (
    Receiver,
    open_receiver,
    read_newline_ready,
    write_newline_ready,
)
from support.child_program import run_child
from support.open_descriptors import list_open_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with open_receiver(str(tmp_path / "notify")) as opened:
        yield opened


def _send(receiver: Receiver, octets: bytes, fds: tuple[int, ...] = ()) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        sending.sendmsg([octets], rights if fds else [], 0, receiver.address)


def test_the_sender_is_who_the_kernel_says() -> None:
    """Anybody may write to the socket; only our own command may say that it is ready."""
    program = """
import json, os
from forkfirst.systemd.notify import Notifier
from forkfirst.systemd.notify_receiver import open_receiver
with open_receiver(f"@forkfirst-sender-{os.getpid()}") as receiver:
    pid = os.fork()
    if pid == 0:
        Notifier(receiver.address).ready()
        os._exit(0)
    os.waitpid(pid, 0)
    message = receiver.receive()
print(json.dumps([message.pid == pid, message.fields]))
"""
    assert run_child(program) == [True, {"READY": "1"}]


@pytest.mark.uncovered
def test_a_message_in_another_s_name_needs_a_privilege() -> None:
    """Root may speak for a process, as `systemd-notify --pid` does; nobody else can pretend to."""
    program = """
import json, os
from forkfirst.systemd.notify import Notifier
from forkfirst.systemd.notify_receiver import open_receiver
with open_receiver(f"@forkfirst-for-{os.getpid()}") as receiver:
    notifier = Notifier(receiver.address)
    notifier.send("READY=1", pid=os.getppid())
    as_root = receiver.receive().pid
    if os.getuid() == 0:
        os.setresuid(65534, 65534, 65534)
    notifier.send("READY=1", pid=os.getppid())
    as_nobody = receiver.receive().pid
root = as_root == os.getppid() or os.getresuid()[0] != 65534
print(json.dumps([root, as_nobody == os.getpid()]))
"""
    assert run_child(program) == [True, True]


_NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", min_size=1, max_size=10)
_VALUES = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=10))
def test_what_is_said_is_what_is_heard(fields: dict[str, str]) -> None:
    """Values may hold any character but a line feed, equals signs included."""
    fields.pop("BARRIER", None)
    with open_receiver(f"@forkfirst-heard-{os.getpid()}") as receiver:
        Notifier(receiver.address).send("\n".join(f"{k}={v}" for k, v in fields.items()))
        message = receiver.receive()
    assert message is not None
    assert message.fields == fields


@given(st.binary(max_size=200))
def test_rubbish_is_dropped_or_heard_but_never_an_error(octets: bytes) -> None:
    """The sender is somebody else's program."""
    with open_receiver(f"@forkfirst-rubbish-{os.getpid()}") as receiver:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.sendto(octets, "\0" + receiver.address[1:])
        message = receiver.receive()
        assert message is None or all(isinstance(name, str) for name in message.fields)


def test_a_barrier_with_anything_else_is_dropped_and_its_descriptors_closed(
    receiver: Receiver,
) -> None:
    """The manual calls it a violation; systemd ignores the whole message."""
    before = list_open_descriptors()
    _send(receiver, b"BARRIER=1")
    _send(receiver, b"BARRIER=1", (0, 1))
    _send(receiver, b"BARRIER=1\nREADY=1", (0,))
    _send(receiver, b"STATUS=after")
    message = receiver.receive()
    assert message is not None
    assert message.fields == {"STATUS": "after"}
    assert list_open_descriptors() == before


def test_what_is_too_long_is_dropped_as_systemd_does(receiver: Receiver) -> None:
    """Half a message could say the opposite of the whole."""
    _send(receiver, b"READY=1\nSTATUS=" + b"x" * 5000, (0,))
    assert receiver.receive() is None


def test_a_flood_of_rubbish_does_not_hold_the_caller(tmp_path: Path) -> None:
    """The launcher waits for other things too; so one call looks at a bounded number."""
    program = """
import json, os, socket, sys
from forkfirst.systemd.notify_receiver import open_receiver
with open_receiver(sys.argv[1]) as receiver:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            while True:
                sending.sendto(b"a\\0b", sys.argv[1])
    results = []
    for _ in range(50):
        results.append(receiver.receive())
    os.kill(pid, 9)
    os.waitpid(pid, 0)
print(json.dumps(results == [None] * 50))
"""
    assert run_child(program, str(tmp_path / "flood")) is True


def test_closing_removes_only_our_own_path(tmp_path: Path) -> None:
    """A successor may have bound the same path by then; its socket is not ours to delete."""
    path = tmp_path / "notify"
    first = open_receiver(str(path))
    path.rename(tmp_path / "moved")
    with open_receiver(str(path)):
        first.close()
        assert path.is_socket()
    assert not path.exists()
    first.close()


def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    """It may be a live socket, or somebody's file."""
    path = tmp_path / "precious"
    path.write_text("kept")
    with pytest.raises(errors.CannotCreateError, match="address already in use"):
        open_receiver(str(path))
    assert path.read_text() == "kept"


@pytest.mark.parametrize("path", ["relative", "vsock:2:1234", "@"])
def test_only_a_path_or_a_name_can_be_bound(path: str) -> None:
    """The command's working directory may be another one."""
    with pytest.raises(errors.ConfigError):
        open_receiver(path)


def test_the_line_feed_of_s6_means_ready() -> None:
    """What comes before it means nothing; the end of file before it means that nothing comes."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        assert read_newline_ready(reading) is None
        os.write(writing, b"loading")
        assert read_newline_ready(reading) is None
        os.write(writing, b"more\n")
        assert read_newline_ready(reading) is True
        write_newline_ready(writing)
        assert read_newline_ready(reading) is True
        assert read_newline_ready(reading) is False
    finally:
        os.close(reading)


def test_ready_is_not_said_on_what_is_no_pipe(tmp_path: Path) -> None:
    """A wrong number would put a line feed into a file, and close what is in use."""
    with pytest.raises(errors.UsageError, match="not a supervisor's pipe"):
        write_newline_ready(1)
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(errors.UsageError, match="not a supervisor's pipe"):
            write_newline_ready(file.fileno())
        assert os.fstat(file.fileno()).st_size == 0
    with pytest.raises(errors.UsageError, match="bad file descriptor"):
        write_newline_ready(10_000)
