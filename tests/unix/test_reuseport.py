"""Sockets that share a port: each has its queue, and connections go where they are steered."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from forkfirst import errors
from forkfirst.unix import reuseport, sockets
from support.open_sockets import OpenSockets, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["opened"]  # a fixture: pytest finds it here by its name

CLIENTS = 128


def _open_group(opened: OpenSockets, count: int, **options: Any) -> list[socket.socket]:
    options = {"host": "127.0.0.1", "port": 0, **options}
    first = opened.keep(sockets.open_tcp(joinable=True, **options))
    others = [opened.keep(reuseport.join(first.fileno())) for _ in range(1, count)]
    return [first, *others]


def _deal(opened: OpenSockets, group: Sequence[socket.socket]) -> list[int]:
    """Connect many times; return how many stand in each queue."""
    host, port, *_ = group[0].getsockname()
    for _ in range(CLIENTS):
        opened.connect((host, port))
    return [reuseport.count_waiting(one.fileno()) for one in group]


def test_each_member_has_its_share(opened: OpenSockets) -> None:
    """By chance, so no two runs are alike; that one has more than half is one in ten billions."""
    group = _open_group(opened, 4)
    reuseport.steer(group[0].fileno(), range(4))
    waiting = _deal(opened, group)
    assert sum(waiting) == CLIENTS
    assert 0 < min(waiting) <= max(waiting) < CLIENTS / 2


@pytest.mark.parametrize("places", [(0,), (3,), (0, 1), (1, 3), (3, 0, 2)])
def test_only_those_who_are_chosen_are_dealt_any(
    opened: OpenSockets, places: tuple[int, ...]
) -> None:
    """A queue from which nobody accepts is where a client would wait in vain."""
    group = _open_group(opened, 4)
    reuseport.steer(group[0].fileno(), places)
    waiting = _deal(opened, group)
    assert {place for place, count in enumerate(waiting) if count} == set(places)


def test_who_joins_later_is_dealt_none_until_that_is_said(opened: OpenSockets) -> None:
    """Its worker has not begun yet."""
    (first,) = _open_group(opened, 1)
    reuseport.steer(first.fileno(), (0,))
    second = opened.keep(reuseport.join(first.fileno()))
    assert _deal(opened, (first, second)) == [CLIENTS, 0]
    reuseport.steer(first.fileno(), (1,))
    assert _deal(opened, (first, second)) == [CLIENTS, CLIENTS]


def test_who_waits_stays_where_it_is_and_is_lost_if_that_is_closed(opened: OpenSockets) -> None:
    """That is why a socket is emptied first: to steer away is not enough."""
    group = _open_group(opened, 2)
    reuseport.steer(group[0].fileno(), (1,))
    client = opened.connect(group[0].getsockname())
    reuseport.steer(group[0].fileno(), (0,))
    assert reuseport.count_waiting(group[1].fileno()) == 1
    reuseport.end(group[1].detach())
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("host", ["127.0.0.1", "*", "localhost"])
def test_a_member_is_like_the_first(opened: OpenSockets, host: str) -> None:
    """It is the same listener; and the port 0 of its declaration was chosen once."""
    group = _open_group(
        opened, 2, host=host, backlog=77, nodelay=True, keepalive=True, deferaccept=3, freebind=True
    )
    first, second = ([_look_at(one), one.getsockname()] for one in group)
    assert first == second
    assert not os.get_inheritable(group[1].fileno())


def _look_at(listener: socket.socket) -> list[int]:
    options = [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT),
        (socket.IPPROTO_IP, 15),  # IP_FREEBIND
    ]
    if listener.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    limit = int.from_bytes(info[28:32], "little")
    return [limit, *(listener.getsockopt(*one) for one in options)]


def test_nobody_else_is_there_when_a_group_begins(opened: OpenSockets) -> None:
    """A second copy of a service would take half of the traffic, and nobody would notice."""
    (first,) = _open_group(opened, 1)
    port = first.getsockname()[1]
    with pytest.raises(errors.AddressInUseError):
        sockets.open_tcp("127.0.0.1", port, joinable=True)
    taken = opened.keep(sockets.open_tcp("127.0.0.1", port, reuseport=True))  # the fault
    assert taken.getsockname() == first.getsockname()


def test_a_socket_that_ends_is_out_even_if_somebody_has_a_copy(opened: OpenSockets) -> None:
    """Else the next to join would not have its place, and connections would go to the dead one."""
    group = _open_group(opened, 2)
    kept = os.dup(group[1].fileno())
    try:
        reuseport.end(os.dup(group[1].fileno()))
        reuseport.end(group.pop().detach())  # to end it twice is no mistake
        group.append(opened.keep(reuseport.join(group[0].fileno())))
        reuseport.steer(group[0].fileno(), (1,))
        assert _deal(opened, group) == [0, CLIENTS]
    finally:
        os.close(kept)


def test_fault_a_socket_that_is_only_closed_keeps_its_place(opened: OpenSockets) -> None:
    """The same without `end`: every connection goes where nobody will ever accept."""
    group = _open_group(opened, 2)
    kept = os.dup(group[1].fileno())
    try:
        group.pop().close()
        group.append(opened.keep(reuseport.join(group[0].fileno())))
        reuseport.steer(group[0].fileno(), (1,))
        assert _deal(opened, group) == [0, 0]
        assert reuseport.count_waiting(kept) == CLIENTS
    finally:
        os.close(kept)


def test_a_socket_that_is_alone_for_good_is_not_joined(opened: OpenSockets) -> None:
    """One that was passed, say: the kernel's own word for it comes through."""
    alone = opened.keep(sockets.open_tcp("127.0.0.1", 0))
    with pytest.raises(OSError, match="in use") as caught:
        reuseport.join(alone.fileno())
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match="nvalid"):
        reuseport.steer(alone.fileno(), (0,))
