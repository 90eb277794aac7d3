"""A stand-in under a listener's number: nobody is accepted, and then everybody who has waited."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

import pytest

from forkfirst.unix import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll(7) is Linux's own")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(0)
        yield made


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """Somebody who will knock; connected by the kernel, whoever accepts."""
    with socket.socket() as made:
        made.settimeout(10)
        yield made


def test_who_accepts_gets_nobody_until_it_leaves(
    listener: socket.socket, client: socket.socket
) -> None:
    """The queue is the listener's, not the number's: whoever came meanwhile is still there."""
    address = listener.getsockname()
    (one,) = stand_in.replace_listeners([listener.fileno()])
    client.connect(address)
    with pytest.raises(BlockingIOError):
        listener.accept()
    one.leave()
    connection, peer = listener.accept()
    connection.close()
    assert peer == client.getsockname()


def test_an_epoll_watches_what_the_number_means(
    listener: socket.socket, client: socket.socket
) -> None:
    """And does not turn without end over a connection that it cannot have."""
    with select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        address = listener.getsockname()
        (one,) = stand_in.replace_listeners([listener.fileno()])
        client.connect(address)
        assert epoll.poll(0) == []
        one.leave()
        assert epoll.poll(10) == [(listener.fileno(), select.EPOLLIN)]
        epoll.unregister(listener)


def test_without_that_an_epoll_goes_on_about_a_socket_that_has_no_number(
    listener: socket.socket, client: socket.socket
) -> None:
    """Why dup2(2) alone will not do: epoll remembers the open file, if somebody else has it too."""
    with select.epoll() as epoll, socket.socket() as other:
        kept = os.dup(listener.fileno())
        epoll.register(listener, select.EPOLLIN)
        address = listener.getsockname()
        os.dup2(other.fileno(), listener.fileno())
        client.connect(address)
        assert epoll.poll(10) == [(listener.fileno(), select.EPOLLIN)]
        with pytest.raises(FileNotFoundError):
            epoll.unregister(listener)
        os.close(kept)


def test_nobody_can_connect_to_it(listener: socket.socket) -> None:
    """Or he would be accepted by a program that believes him to be its client."""
    (one,) = stand_in.replace_listeners([listener.fileno()])
    with socket.socket() as stranger:
        stranger.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stranger.connect(listener.getsockname())
    one.leave()


def test_every_copy_of_the_listener_is_replaced(
    listener: socket.socket, client: socket.socket
) -> None:
    """A server that has made a copy for itself accepts from that."""
    with listener.dup() as copy:
        made = stand_in.replace_listeners([listener.fileno()])
        assert sorted(one.fd for one in made) == sorted([listener.fileno(), copy.fileno()])
        client.connect(_address_behind(made[0]))
        with pytest.raises(BlockingIOError):
            copy.accept()
        for one in made:
            one.leave()
        copy.accept()[0].close()


def _address_behind(one: stand_in.StandIn) -> tuple[str, int]:
    with socket.socket(fileno=os.dup(one._kept)) as kept:  # noqa: SLF001 - the number shows the other's
        address: tuple[str, int] = kept.getsockname()
        return address


def test_a_number_that_was_closed_meanwhile_is_left_alone(listener: socket.socket) -> None:
    """It may be anybody's by now."""
    made = stand_in.replace_listeners([listener.fileno()])
    number = listener.detach()
    os.close(number)
    made[0].leave()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    made = []
    with socket.create_server(("127.0.0.1", 0)) as second:
        made = stand_in.replace_listeners([second.fileno()])
        with open(os.devnull, "rb") as file:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(file.fileno(), second.fileno())
            made[0].leave()
            assert os.path.samestat(os.fstat(second.fileno()), os.fstat(file.fileno()))


def test_nothing_is_left_open(listener: socket.socket) -> None:
    """A worker can be paused as often as anybody likes."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are wanted
    with select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        for _ in range(3):
            for one in stand_in.replace_listeners([listener.fileno()]):
                one.leave()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_a_datagram_socket_is_left_as_it_is() -> None:
    """Who answers a datagram sends from the socket that it came to."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        assert stand_in.replace_listeners([one.fileno()]) == []
