"""Descriptors and locks on files: what is shared, and what is dropped."""
# ruff: noqa: PLC0415 - a state imports what it is about, where it is about it

from __future__ import annotations

import fcntl
import os
import select
import sys
from typing import TYPE_CHECKING

from guard.corpus.registry import ForkPoint, state

if TYPE_CHECKING:
    import sqlite3


def _open_file() -> int:
    import tempfile

    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives in its descriptor's copy
    return os.dup(file.fileno())


@state("hang", quick=True)
def selector_shared(fork: ForkPoint) -> None:
    """A selector with a registration that the parent takes back: the child waits for ever."""
    import selectors

    receive, send = os.pipe()
    ready, go = os.pipe()
    selector = selectors.DefaultSelector()
    selector.register(receive, selectors.EVENT_READ)
    if fork():
        os.close(go)
        os.read(ready, 1)
        os.write(send, b"x")
        selector.select()
        return
    selector.unregister(receive)
    os.close(go)


@state("wrong")
def epoll_shared(fork: ForkPoint) -> None:
    """A descriptor that the child closes is still reported to it: the parent holds it open."""
    receive, send = os.pipe()
    epoll = select.epoll()
    epoll.register(receive, select.EPOLLIN)
    if fork():
        os.close(receive)
        os.write(send, b"x")
        assert epoll.poll(1) == []


@state("harmless", quick=True)
def epoll_empty(fork: ForkPoint) -> None:
    """An epoll without a registration."""
    epoll = select.epoll()
    if fork():
        assert epoll.poll(0) == []


@state("harmless")
def poll_object(fork: ForkPoint) -> None:
    """poll(2) keeps its list in memory, so each process has its own."""
    receive, send = os.pipe()
    poll = select.poll()
    poll.register(receive, select.POLLIN)
    if fork():
        os.write(send, b"x")
        assert poll.poll(1000)


@state("harmless", quick=True)
def event_descriptors(fork: ForkPoint) -> None:
    """An eventfd and a pidfd are shared; the child that does not use them is unharmed."""
    import ctypes

    libc = ctypes.CDLL(None)
    descriptors = [libc.eventfd(0, 0), os.pidfd_open(os.getpid())]
    descriptors += [libc.inotify_init(), libc.timerfd_create(1, 0)]
    descriptors += [libc.signalfd(-1, ctypes.create_string_buffer(128), 0)]
    assert min(descriptors) >= 0
    if fork():
        for descriptor in descriptors:
            os.close(descriptor)


@state("harmless", quick=True)
def forty_descriptors(fork: ForkPoint) -> None:
    """Files, pipes and null devices."""
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    for _ in range(10):
        descriptors += os.pipe()
    if fork():
        for descriptor in descriptors:
            os.close(descriptor)


@state("harmless")
def a_thousand_descriptors(fork: ForkPoint) -> None:
    """Many descriptors are only many."""
    for _ in range(900):
        os.open(os.devnull, os.O_RDONLY)
    if fork():
        return


@state("harmless", quick=True)
def listening_socket(fork: ForkPoint) -> None:
    """A listener is made to be inherited."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(listener.getsockname()) as client:
        if fork():
            connection, _ = listener.accept()
            connection.sendall(b"child")
            os._exit(0)
        assert client.recv(10) == b"child"


@state("harmless")
def closed_connection(fork: ForkPoint) -> None:
    """A connection that was used and closed."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(listener.getsockname()).close()
    if fork():
        socket.create_connection(listener.getsockname()).close()


@state("wrong", unseen=True)
def connection_shared(fork: ForkPoint) -> None:
    """One connection used by both: one process gets the other's answer."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    if fork():
        client.sendall(b"C")
        os._exit(0)
    fork.wait_for_child()
    client.sendall(b"P")
    server.sendall(b"answer to " + server.recv(1))
    assert client.recv(20) == b"answer to P"


@state("wrong", quick=True)
def record_lock(fork: ForkPoint) -> None:
    """A lockf() lock does not pass to the child: whoever asks gets it, too."""
    descriptor = _open_file()
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    if not fork():
        fork.wait_for_child()
        return
    # An exclusive lock of our own would be granted; the kernel says that the parent has it.
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@state("harmless")
def record_lock_given_back(fork: ForkPoint) -> None:
    """A lockf() lock that was released."""
    descriptor = _open_file()
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    fcntl.lockf(descriptor, fcntl.LOCK_UN)
    if fork():
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@state("harmless", quick=True)
def whole_file_lock(fork: ForkPoint) -> None:
    """A flock() lock belongs to the open file, which the child has, too."""
    descriptor = _open_file()
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if fork():
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@state("harmless")
def open_file_description_lock(fork: ForkPoint) -> None:
    """A lock of the open file description passes to the child like flock()'s."""
    import struct

    descriptor = _open_file()
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    fcntl.fcntl(descriptor, 37, wanted)  # F_OFD_SETLK, which 3.11 has no name for
    if fork():
        fcntl.fcntl(descriptor, 37, wanted)


def _database() -> tuple[sqlite3.Connection, str]:
    import sqlite3
    import tempfile

    path = tempfile.mkdtemp() + "/database"
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.2)
    connection.execute("CREATE TABLE numbers (number)")
    return connection, path


@state("wrong")
def database_transaction(fork: ForkPoint) -> None:
    """An exclusive SQLite transaction: the child believes that it has the lock, and has not."""
    import sqlite3

    connection, path = _database()
    connection.execute("BEGIN EXCLUSIVE")
    ready, go = os.pipe()
    if not fork():
        os.close(os.open(path, os.O_RDONLY))  # drops the locks, as the launcher's exit does
        os.close(go)
        return
    os.close(go)
    os.read(ready, 1)
    assert connection.in_transaction
    other = sqlite3.connect(path, isolation_level=None, timeout=0.2)
    other.execute("INSERT INTO numbers VALUES (1)")
    message = "another connection wrote under an exclusive lock"
    raise AssertionError(message)


@state("harmless")
def database_idle(fork: ForkPoint) -> None:
    """An idle SQLite connection that the child does not use."""
    _, path = _database()
    if fork():
        import sqlite3

        other = sqlite3.connect(path, isolation_level=None)
        other.execute("INSERT INTO numbers VALUES (1)")


@state("harmless")
def database_closed(fork: ForkPoint) -> None:
    """An SQLite database that was closed."""
    connection, path = _database()
    connection.close()
    if fork():
        import sqlite3

        sqlite3.connect(path).execute("SELECT * FROM numbers")


@state("harmless")
def terminal_open(fork: ForkPoint) -> None:
    """A pseudo terminal is a device that every process may use."""
    import pty

    primary, secondary = pty.openpty()
    if fork():
        os.write(secondary, b"child\n")
        assert b"child" in os.read(primary, 100)


@state("harmless")
def memory_file(fork: ForkPoint) -> None:
    """A file in memory."""
    if sys.platform != "linux":
        return
    descriptor = os.memfd_create("corpus")
    os.write(descriptor, b"parent")
    if fork():
        assert os.pread(descriptor, 10, 0) == b"parent"
