"""Which listeners have a socket for each worker, and which worker has which."""

from __future__ import annotations

from typing import Any

import pytest

from forkfirst.plan import adoption, keeping, spreading
from forkfirst.plan.fleet import events, slots
from forkfirst.plan.fleet import state as states
from forkfirst.plan.fleet.state import Settings, Worker
from forkfirst.plan.host import Host, PassedDescriptor
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.preparation import OpenListener
from forkfirst.plan.service import Declaration, make_settings
from support.fleet_world import World

SPREAD = "web=127.0.0.1:8000?reuseport=1"


def _declare(*listeners: str, workers: int = 4) -> Declaration:
    parsed = tuple(map(parse_listener, listeners))
    return Declaration(name="app", target="app.py:main", listeners=parsed, workers=workers)


# -- what is opened -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listener", "workers", "sockets"),
    [
        (SPREAD, 4, 4),
        (SPREAD, 1, 1),
        (SPREAD, 0, 0),
        (SPREAD, 1000, 200),
        ("8000", 4, 0),
        ("8000?reuseport=0", 4, 0),
        ("udp:[::1]:53?reuseport=1", 4, 0),
        ("unix:/run/web", 4, 0),
    ],
)
def test_a_listener_has_as_many_sockets_as_there_are_workers(
    listener: str, workers: int, sockets: int
) -> None:
    """Of TCP, and if that is asked for; 0 is one that all share, as without workers."""
    service = _declare(listener, workers=workers)
    step = spreading.plan_opening(service, service.listeners[0])
    assert step == OpenListener(listener=service.listeners[0], spread=sockets)
    spread = bool(sockets)
    assert (make_settings(service, 2).yield_seconds > 0) == spread if workers else not spread


def test_several_listeners_have_no_more_sockets_than_can_be_passed_on() -> None:
    """One message takes 253 descriptors; the supervisor opens what lacks."""
    service = _declare(SPREAD, "b=127.0.0.1:8001?reuseport=1", "c=8002", workers=1000)
    opened = [spreading.plan_opening(service, one).spread for one in service.listeners]
    assert opened == [100, 100, 0]


def test_a_plan_says_how_many_there_will_be() -> None:
    """Whoever asks for it reads it there first."""
    service = _declare(SPREAD)
    said = spreading.plan_opening(service, service.listeners[0]).describe()
    assert said == f"listen on {SPREAD} with 4 sockets, one for each worker"


def test_what_was_kept_is_the_first_of_them() -> None:
    """A manager keeps one socket under a name; the others are opened beside it."""
    service = _declare(SPREAD)
    kept = PassedDescriptor(name=keeping.make_name(SPREAD), fd=3, kind="tcp", listener=SPREAD)
    host = Host(uid=0, pid=4711, home="/", directory="/", passed=(kept,))
    (step,) = adoption.plan_listeners(service, host)
    assert step == adoption.TakeBackListener(listener=service.listeners[0], fd=3, spread=4)
    assert step.describe().endswith("kept on descriptor 3, and open 3 more")


def test_a_socket_is_given_up_after_whatever_may_still_come_to_it() -> None:
    """A second for a handshake; with `deferaccept` also for the first bytes."""
    assert make_settings(_declare(SPREAD), 2).yield_seconds == 1
    assert make_settings(_declare(f"{SPREAD}&deferaccept=5"), 2).yield_seconds == 6


# -- who has which --------------------------------------------------------------------------------


def _worker(number: int, slot: int, state: str = states.READY, **fields: Any) -> Worker:
    return Worker(id=number, generation=1, state=state, since=0.0, slot=slot, **fields)


@pytest.mark.parametrize(
    ("workers", "slot"),
    [
        ([], 0),
        ([_worker(1, 0), _worker(2, 2)], 1),
        ([_worker(1, 0, states.DRAINING), _worker(2, 1, states.STARTING)], 0),
        ([_worker(1, 0), _worker(2, 1, due="old"), _worker(3, 2)], 1),
        ([_worker(1, 0, due="old"), _worker(2, 1)], 2),
    ],
    ids=["the first", "the free one", "a leaving one's", "a due one's", "a free one before that"],
)
def test_a_new_worker_has_the_slot_that_lacks_one(workers: list[Worker], slot: int) -> None:
    """A queue that nobody empties is worse than two workers for one."""
    assert slots.choose_slot(workers, 3) == slot


def test_fewer_workers_are_those_of_the_first_slots() -> None:
    """So the sockets that go are the last ones, and the places of the others stay."""
    world = World(Settings(workers=4, yield_seconds=1))
    world.cooperate()
    world.do(events.ScaleAsked(workers=2))
    assert slots.list_open(world.fleet) == (0, 1)
    assert slots.count_needed(world.fleet) == 4, "until they are gone"
    assert [one.state for one in world.fleet.workers] == [*["ready"] * 2, *["yielding"] * 2]
    world.wait(0.9)
    assert world.list_told("queue", "drain") == []
    world.wait(0.2)
    assert world.list_told("queue") == [3, 4], "they are looked at now"
    world.do(events.Queued(worker=3, connections=0))
    world.do(events.Queued(worker=4, connections=7))
    assert (world.list_told("drain"), world.list_told("queue")) == ([3], [4])
    world.wait(40)
    assert world.list_told("drain", "kill") == [3, 4], "and not for ever"
    world.cooperate()
    assert slots.count_needed(world.fleet) == 2


def test_a_worker_that_is_not_wanted_any_more_and_wanted_again_stays() -> None:
    """It has not been told to leave yet."""
    world = World(Settings(workers=3, yield_seconds=1))
    world.cooperate()
    world.do(events.ScaleAsked(workers=1))
    world.do(events.ScaleAsked(workers=2))
    world.cooperate()
    assert [one.id for one in world.fleet.workers] == [1, 2]
    assert world.starts == 3


def test_a_worker_that_died_is_dealt_nothing_until_its_replacement_is_ready() -> None:
    """With nobody at all every queue is as good as another."""
    world = World(Settings(workers=2))
    assert slots.list_open(world.fleet) == (0, 1)
    world.cooperate()
    world.do(events.Exited(worker=1, status=137))
    assert slots.list_open(world.fleet) == (1,)
    assert slots.find_slot(world.fleet, 3) == 0
    world.do(events.Ready(worker=3))
    assert slots.list_open(world.fleet) == (0, 1)


def test_a_reload_to_fewer_workers_empties_the_sockets_that_go() -> None:
    """The new generation does not have them, and the old one leaves at once otherwise."""
    world = World(Settings(workers=3, yield_seconds=1))
    world.cooperate()
    world.do(events.ReloadAsked(ticket="a", settings=Settings(workers=2, yield_seconds=1)))
    for worker in (4, 5):
        world.do(events.Ready(worker=worker))
    assert {one.id: one.state for one in world.fleet.workers if one.generation == 1} == {
        1: "draining",
        2: "draining",
        3: "yielding",
    }
    assert slots.list_open(world.fleet) == (0, 1)
