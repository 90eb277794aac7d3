"""The fleet of workers: what holds in every order of events, and each story by itself."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkfirst.plan.fleet import change as fleet_change
from forkfirst.plan.fleet import events, slots
from forkfirst.plan.fleet import reload as fleet_reload
from forkfirst.plan.fleet import state as states
from forkfirst.plan.fleet.change import Change, compute_backoff
from forkfirst.plan.fleet.state import Settings
from forkfirst.stages.upgrade import plain
from forkfirst.values import replace
from support.fleet_world import World, find_serving

if TYPE_CHECKING:
    from collections.abc import Callable

# -- every order of events ------------------------------------------------------------------------

SETTINGS = st.builds(
    Settings,
    workers=st.integers(1, 5),
    restart=st.sampled_from(["always", "always", "on-failure", "never"]),
    backoff_jitter=st.sampled_from([0.0, 0.5]),
    crash_limit=st.integers(1, 6),
    max_age=st.sampled_from([0.0, 40.0]),
    max_requests=st.sampled_from([0, 100]),
    canary=st.sampled_from([0.0, 10.0, 50.0, 100.0]),
    commit_window=st.sampled_from([0.0, 5.0]),
    starts_at_once=st.sampled_from([0, 1, 2]),
    yield_seconds=st.sampled_from([0.0, 1.0]),
)

# A kind, which of the living workers, a small number, and the seconds that pass before.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("ready", "ready", "cooperate", "cooperate", "exit", "hang", "well", "ill"),
                *("measure", "recycle", "reload", "reload", "scale", "tick", "stranger", "empty"),
            ]
        ),
        st.integers(0, 7),
        st.integers(0, 5),
        st.sampled_from([0.0, 0.0, 0.1, 1.0, 6.0, 40.0, 70.0]),
    ),
    max_size=60,
)
Step = tuple[str, int, int, float]


def make_world(first: Settings) -> World:
    """Return a world that has started well, but for one in five: else few would come far."""
    world = World(first)
    if first.workers != 5:
        world.cooperate()
    return world


def take(world: World, step: Step, other: Settings | None = None) -> None:
    """Let one step happen in *world*."""
    kind, which, number, seconds = step
    world.wait(seconds)
    living = sorted(world.book)
    worker = living[which % len(living)] if living and kind != "stranger" else 10_000
    jitter = number / 6
    happenings: dict[str, list[events.Event]] = {
        "ready": [events.Started(worker=worker, share=jitter), events.Ready(worker=worker)],
        "exit": [events.Exited(worker=worker, status=number % 3, jitter=jitter)],
        "hang": [events.Hung(worker=worker, jitter=jitter)],
        "well": [events.Health(worker=worker, healthy=True)],
        "ill": [events.Health(worker=worker, healthy=False, reason="no database")],
        "measure": [events.Measured(worker=worker, requests=number * 30, memory=number)],
        "recycle": [events.Recycle(worker=worker)],
        "empty": [events.Queued(worker=worker, connections=0)],
        "reload": [
            events.ReloadAsked(
                ticket=f"{len(world.reports)}.{world.now}",
                settings=other if number % 2 else None,
                wait=number > 2,
            )
        ],
        "scale": [events.ScaleAsked(workers=number)],
        "tick": [events.Tick(jitter=jitter)],
        "stranger": [
            events.Ready(worker=worker),
            events.Exited(worker=worker, status=1),
            events.Hung(worker=worker),
            events.Health(worker=worker, healthy=False),
            events.Measured(worker=worker, requests=10**9),
            events.Recycle(worker=worker),
            events.Queued(worker=worker, connections=0),
            events.Started(worker=worker),
        ],
    }
    if kind == "cooperate":
        world.cooperate()
    for event in happenings.get(kind, []):
        world.do(event)


@settings(max_examples=400, deadline=None)
@given(SETTINGS, SETTINGS, STEPS)
def test_every_law_holds_in_every_order_of_events(
    first: Settings, other: Settings, steps: list[Step]
) -> None:
    """The world checks after each event: enough ready, one generation at work, times bounded."""
    world = make_world(first)
    for step in steps:
        take(world, step, other)


@settings(max_examples=200, deadline=None)
@given(SETTINGS, SETTINGS, STEPS, st.booleans())
def test_it_ends_after_a_stop_even_if_no_process_ever_answers(
    first: Settings,
    other: Settings,
    steps: list[Step],
    force: bool,  # noqa: FBT001 - a parameter of the test, given by name
) -> None:
    """Grace, cancellation, SIGKILL, and then a process that cannot be killed is left behind."""
    world = make_world(first)
    for step in steps:
        take(world, step, other)
    world.do(events.StopAsked(force=force))
    kept = max(one.kill_seconds for one in (first, other))
    world.wait(kept if force else world.longest_wait + kept)
    assert world.fleet.state == states.FINISHED
    assert world.finished is not None
    assert world.unanswered == [], "who asked for a reload is told that there is none"
    assert (world.fleet.workers, world.fleet.generations, world.timer) == ((), (), None)
    assert world.do(events.ScaleAsked(workers=3)) == ()


@settings(max_examples=200, deadline=None)
@given(SETTINGS, SETTINGS, STEPS)
def test_it_comes_to_rest_with_as_many_workers_as_asked_for(
    first: Settings, other: Settings, steps: list[Step]
) -> None:
    """Whatever has happened: if every worker does its part from now on, nothing is left over."""
    never_old = [replace(one, max_age=0.0) for one in (first, other)]
    world = make_world(never_old[0])
    for step in steps:
        take(world, step, never_old[1])
    for _ in range(50):
        world.cooperate()
        if world.timer is None:
            break
        world.wait(world.timer - world.now)
    assert (world.timer, world.unanswered) == (None, [])
    if world.finished is None:
        serving = find_serving(world.fleet)
        assert world.fleet.generations == (serving,)
        assert serving is not None
        if serving.state == states.SERVING:
            assert len(world.list_told("work")) == serving.asked - serving.retired
            if serving.settings.yield_seconds and not serving.retired:
                assert slots.list_open(world.fleet) == tuple(range(serving.asked))
                assert slots.count_needed(world.fleet) == serving.asked
    else:
        assert world.book == {}


@settings(max_examples=150, deadline=None)
@given(SETTINGS, SETTINGS, STEPS)
def test_an_upgrade_at_any_moment_hands_over_the_same_fleet(
    first: Settings, other: Settings, steps: list[Step]
) -> None:
    """It is written down and read back: not a number differs, so the same events mean the same."""
    world = make_world(first)
    for step in steps[:20]:
        take(world, step, other)
        copy = plain.decode(json.loads(json.dumps(plain.encode(world.fleet))))
        assert copy == world.fleet
        assert repr(copy) == repr(world.fleet), "an int has not become a float"


class _Witnessed(dict[tuple[str, str], str]):
    """A table that remembers which of its rows were used."""

    def __init__(self, table: dict[tuple[str, str], str]) -> None:
        super().__init__(table)
        self.used: set[tuple[str, str]] = set()

    def __getitem__(self, key: tuple[str, str]) -> str:
        self.used.add(key)
        return super().__getitem__(key)


def test_every_move_in_the_tables_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagram in the documentation is drawn from them: no arrow may be a dream."""
    tables = {
        name: _Witnessed(getattr(states, name))
        for name in ("WORKER_MOVES", "GENERATION_MOVES", "FLEET_MOVES")
    }
    for name, table in tables.items():
        monkeypatch.setattr(states, name, table)
    dice = random.Random(5)  # noqa: S311 - a walk, not a secret
    kinds = ["ready", "cooperate", "exit", "hang", "well", "ill", "recycle", "reload", "scale"]
    for walk in range(1500):
        world = World(
            Settings(
                workers=dice.randint(1, 3),
                restart=dice.choice(["always", "never"]),
                crash_limit=dice.randint(1, 3),
                canary=dice.choice([0, 50]),
                commit_window=dice.choice([0, 5]),
                yield_seconds=dice.choice([0, 1]),
            )
        )
        if walk % 10:  # most start well, or few would come far
            world.cooperate()
        for _ in range(walk % 25):
            seconds = dice.choice([0, 0, 1, 40, 70])
            take(world, (dice.choice(kinds), dice.randrange(8), dice.randrange(6), seconds))
        world.do(events.StopAsked(force=walk % 2 == 0))
        world.wait(100)
        if all(table.used >= set(table) for table in tables.values()):
            break
    assert [(name, set(table) - table.used) for name, table in tables.items()] == [
        (name, set()) for name in tables
    ]


def test_each_move_leads_to_a_state_that_has_a_way_on() -> None:
    """A state without a way out would be where a fleet gets stuck."""
    for what, _, _, target in states.list_moves():
        ways_on = [move for move in states.list_moves() if move[:2] == (what, target)]
        assert ways_on or target in (states.GONE, states.FINISHED)


# -- the laws are shown to be laws: without them, the world objects -------------------------------


def _drain_the_serving_one_at_once(change: Change, *_: Any) -> None:
    serving = change.find_serving()
    assert serving is not None
    change.discharge(serving.number)


def _leave_the_old_one_at_work(change: Change, old: Any, _: Any) -> None:
    change.move("new one serves")
    change.move_generation(old.number, "replaced, may return", until=change.now + 5)


def _drain_without_a_limit(change: Change, worker: Any) -> None:
    change.move_worker(worker, "drain")
    change.act(events.Drain(worker=worker.id, grace=1))


def _leave_the_queue(change: Change, worker: Any) -> None:
    change.drain(worker)


def _fail_with_everybody(change: Change, *_: Any) -> None:
    for generation in tuple(change.generations):
        change.discharge(generation)


@pytest.mark.parametrize(
    ("place", "name", "wrong", "law"),
    [
        (fleet_reload, "begin", _drain_the_serving_one_at_once, "never fewer ready"),
        (fleet_reload, "_put_aside", _leave_the_old_one_at_work, "only one generation"),
        (fleet_reload, "fail", _fail_with_everybody, "never fewer ready"),
        (Change, "drain", _drain_without_a_limit, "every state ends"),
        (Change, "retire", _leave_the_queue, "no queue is left behind"),
        (Change, "arm_timer", lambda _: None, "somebody looks"),
    ],
)
def test_a_fleet_without_the_property_is_caught(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, wrong: Callable[..., None], law: str
) -> None:
    """Stop-then-start reloads, two generations at work, a fatal failed reload, an endless drain."""
    monkeypatch.setattr(place, name, wrong)

    def live() -> None:
        spread = 1 if name == "retire" else 0
        world = World(Settings(workers=2, commit_window=5, yield_seconds=spread))
        world.cooperate()
        world.do(events.ReloadAsked(ticket="a"))
        world.cooperate()
        world.wait(5)
        world.do(events.ReloadAsked(ticket="b"))
        world.do(events.Exited(worker=max(world.book), status=1))
        world.do(events.ScaleAsked(workers=1))

    with pytest.raises(AssertionError, match=law):
        live()


# -- stories --------------------------------------------------------------------------------------


def make_running(**fields: Any) -> World:
    """Return a world whose fleet has started well."""
    world = World(Settings(**fields))
    world.cooperate()
    assert world.fleet.state == states.RUNNING
    assert world.reports == [events.ReportReady()]
    world.reports.clear()
    return world


def test_a_start_is_ready_when_every_worker_is() -> None:
    """The launcher says "running" when all that was asked for runs."""
    world = World(Settings(workers=3))
    assert world.list_told("start") == [1, 2, 3]
    for worker in (1, 2):
        world.do(events.Ready(worker=worker))
    assert world.reports == []
    world.do(events.Ready(worker=3))
    assert world.reports == [events.ReportReady()]
    assert world.timer is None, "an idle supervisor never wakes up"


@pytest.mark.parametrize(("status", "said"), [(1, 1), (137, 137), (0, 70)])
def test_a_start_of_broken_code_fails_at_once(status: int, said: int) -> None:
    """One traceback and the worker's own status, not forty restarts; ended early is failed too."""
    world = World(Settings(workers=4))
    world.do(events.Exited(worker=2, status=status))
    (report,) = world.reports
    assert isinstance(report, events.ReportStartFailed)
    assert (report.worker, report.exit_status) == (2, said)
    assert report.reason == f"worker 2 ended with status {status} before it was ready"
    world.cooperate()
    assert (world.finished, world.starts) == (said, 4)


def test_a_start_that_hangs_is_given_up_in_time() -> None:
    """124, as for every time limit."""
    world = World(Settings(ready_timeout=7))
    world.wait(7)
    (report,) = world.reports
    assert isinstance(report, events.ReportStartFailed)
    assert report.reason == "worker 1 was not ready after 7 seconds"
    assert world.list_told("kill") == [1]
    world.do(events.Exited(worker=1, status=137))
    assert world.finished == 124


def test_a_worker_that_lived_is_replaced_at_once() -> None:
    """Its death says nothing about the next one: no wait between the two."""
    world = make_running(workers=2)
    world.wait(60)
    world.do(events.Exited(worker=1, status=137))
    assert world.list_told("start") == [3]


def test_failures_in_a_row_wait_longer_and_end_in_a_clear_state() -> None:
    """Immediately, then doubling with jitter, then no more; and the end when nobody is left."""
    world = make_running(crash_limit=4, backoff_base=1, backoff_jitter=0.5)
    waits = []
    while not world.reports:
        failed_at = world.now
        world.do(events.Exited(worker=max(world.book), status=3, jitter=1.0))
        while not world.list_told("start") and world.timer is not None:
            world.wait(world.timer - world.now)
        waits.append(world.now - failed_at)
    assert waits == [0.0, 1.5, 3.0, 0.0]
    assert world.reports == [events.ReportCrashLoop(generation=1, failures=4, ready=0)]
    assert (world.finished, world.starts) == (3, 4)


def test_a_crash_loop_of_some_leaves_the_others_serving() -> None:
    """Degraded, and said so; whoever then scales or reloads asks for another try."""
    world = make_running(workers=2, crash_limit=2)
    for worker in (2, 3):
        world.do(events.Exited(worker=worker, status=1))
    assert world.reports == [events.ReportCrashLoop(generation=1, failures=2, ready=1)]
    assert (world.fleet.state, world.list_told("start"), world.timer) == (states.RUNNING, [], None)
    world.do(events.ScaleAsked(workers=2))
    world.cooperate()
    assert len(world.list_told("work")) == 2


def test_a_failure_after_somebody_proved_the_code_counts_as_the_first() -> None:
    """A failure now and then, between workers that live, is no loop."""
    world = make_running(crash_limit=2)
    for _ in range(5):
        world.do(events.Exited(worker=max(world.book), status=1))
        world.cooperate()
        world.wait(10)
    assert world.reports == []


@pytest.mark.parametrize("doublings", range(200))
def test_no_wait_exceeds_its_limit(doublings: int) -> None:
    """However long a loop lasts."""
    assert compute_backoff(Settings(), doublings, 1.0) <= 30 * 1.25


@pytest.mark.parametrize(
    ("restart", "status", "restarted"),
    [
        ("always", 0, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("never", 0, False),
        ("never", 1, False),
    ],
)
def test_the_restart_policy_decides_who_comes_back(
    restart: str,
    status: int,
    restarted: bool,  # noqa: FBT001 - a parameter of the test, given by name
) -> None:
    """And when nobody is left and nobody comes back, the service has ended, with that status."""
    world = make_running(restart=restart)
    world.do(events.Exited(worker=1, status=status))
    assert (world.list_told("start") == [2]) is restarted
    assert world.finished == (None if restarted else status)


def test_a_worker_that_hangs_says_where_and_is_replaced() -> None:
    """It takes no work, so its successor does not wait for its end."""
    world = make_running(workers=2, stacks_seconds=1)
    world.wait(60)
    actions = world.do(events.Hung(worker=1))
    assert actions[:2] == (
        events.LogStacks(worker=1),
        events.StartWorker(worker=3, generation=1),
    )
    world.wait(1)
    assert world.list_told("kill") == [1]


def test_recycling_starts_the_successor_first_and_takes_one_at_a_time() -> None:
    """Age, requests and memory come due for all at once; the service must not notice."""
    world = make_running(workers=2, max_requests=100, recycle_jitter=0)
    for worker in (1, 2):
        world.do(events.Measured(worker=worker, requests=99))
    assert world.list_told("start") == []
    for worker in (1, 2):
        world.do(events.Measured(worker=worker, requests=100))
    assert world.list_told("start", "drain") == [3]
    world.do(events.Ready(worker=3))
    assert (world.list_told("drain"), world.list_told("start")) == ([1], [4])
    world.cooperate()
    assert world.list_told("work") == [3, 4]


def test_age_recycles_at_different_times() -> None:
    """Workers started together would otherwise be replaced together, for ever."""
    world = World(Settings(workers=2, max_age=100, recycle_jitter=0.2))
    world.do(events.Started(worker=1, share=0.5))
    for worker in (1, 2):
        world.do(events.Ready(worker=worker))
    assert world.timer == world.now + 90
    world.wait(90)
    assert world.list_told("start") == [3]
    assert [one.due for one in world.fleet.workers] == ["it is old enough", "", ""]


def test_scaling_down_drains_and_up_starts() -> None:
    """The newest go first: the others have warm caches."""
    world = make_running(workers=3)
    world.do(events.ScaleAsked(workers=1))
    assert world.list_told("drain") == [2, 3]
    world.do(events.ScaleAsked(workers=2))
    assert world.list_told("start") == [4]
    world.do(events.ScaleAsked(workers=0))
    assert (world.list_told("work"), world.list_told("drain")) == ([1], [2, 3, 4])


def test_a_reload_drains_the_old_generation_when_all_of_the_new_one_is_ready() -> None:
    """Not a moment before: the listeners always have somebody who accepts."""
    world = make_running(workers=2)
    world.do(events.ReloadAsked(ticket="a"))
    assert (world.list_told("work"), world.list_told("start")) == ([1, 2], [3, 4])
    world.do(events.Ready(worker=3))
    assert world.list_told("work") == [1, 2, 3]
    actions = world.do(events.Ready(worker=4))
    assert actions[:3] == (
        events.Drain(worker=1, grace=30.0),
        events.Drain(worker=2, grace=30.0),
        events.ReportReloaded(tickets=("a",), generation=2),
    )
    world.cooperate()
    assert [one.number for one in world.fleet.generations] == [2]


def test_a_reload_starts_no_more_at_a_time_than_leaves_room_for_those_who_serve() -> None:
    """Imports take a processor each: four at once on two make every request wait for them."""
    world = make_running(workers=3, starts_at_once=1)
    world.do(events.ReloadAsked(ticket="a"))
    assert world.list_told("start") == [4]
    world.do(events.Ready(worker=4))
    assert world.list_told("start") == [5]
    world.do(events.Exited(worker=1, status=1))
    assert world.list_told("start") == [5, 6], "who serves is replaced at once"
    world.do(events.Ready(worker=5))
    world.cooperate()
    assert world.reports[-1] == events.ReportReloaded(tickets=("a",), generation=2)


def test_a_start_waits_for_nobody() -> None:
    """Nobody is served yet, so all processors are free for it."""
    world = World(Settings(workers=3, starts_at_once=1))
    assert world.list_told("start") == [1, 2, 3]


def test_a_reload_brings_its_own_settings() -> None:
    """New settings are part of what is reloaded, the number of workers among them."""
    world = make_running(workers=1)
    world.do(events.ReloadAsked(ticket="a", settings=Settings(workers=3, grace_seconds=1)))
    world.cooperate()
    assert len(world.list_told("work")) == 3
    world.do(events.StopAsked())
    assert world.timer == world.now + 1 + 5


def test_a_reload_without_settings_keeps_the_scale() -> None:
    """Six that were asked for at run time do not become the four of the file."""
    world = make_running(workers=1)
    world.do(events.ScaleAsked(workers=2))
    world.cooperate()
    world.do(events.ReloadAsked())
    world.cooperate()
    assert len(world.list_told("work")) == 2


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (
            events.Exited(worker=4, status=1),
            "worker 4 ended with status 1 before it was ready",
        ),
        (events.Exited(worker=3, status=0), "worker 3 ended with status 0"),
        (events.Hung(worker=3), "the loop of worker 3 hangs"),
        (
            events.Health(worker=3, healthy=False, reason="no database"),
            "worker 3 is not healthy: no database",
        ),
        (events.Tick(), "worker 4 was not ready after 60 seconds"),
    ],
)
def test_a_reload_into_a_broken_generation_changes_nothing(
    event: events.Event, reason: str
) -> None:
    """The bar that three of four peers miss: the old workers never learn of it."""
    world = make_running(workers=2)
    untouched = world.fleet.generations[0], *(one for one in world.fleet.workers)
    world.do(events.ReloadAsked(ticket="a"))
    world.do(events.Ready(worker=3))
    if isinstance(event, events.Tick):
        world.now += 60
    actions = world.do(event)
    (report,) = world.reports
    assert isinstance(report, events.ReportReloadFailed)
    assert (report.tickets, report.reason) == (("a",), reason)
    assert not [one for one in actions if getattr(one, "worker", None) in (1, 2)]
    world.cooperate()
    assert (world.fleet.generations[0], *world.fleet.workers) == untouched
    assert world.fleet.state == states.RUNNING


def test_a_canary_is_started_first_and_must_be_well() -> None:
    """Two of ten, and only after both are healthy the other eight."""
    world = make_running(workers=10)
    world.do(events.ReloadAsked(ticket="a", settings=Settings(workers=10, canary=11)))
    canaries = world.list_told("start")
    assert len(canaries) == 2
    for worker in canaries:
        world.do(events.Ready(worker=worker))
    assert world.list_told("check") == canaries
    world.do(events.Health(worker=canaries[0], healthy=True))
    assert world.list_told("start") == []
    world.do(events.Health(worker=canaries[1], healthy=True))
    assert len(world.list_told("start")) == 8


def test_a_canary_that_does_not_say_how_it_is_fails() -> None:
    """Silence is not health."""
    world = make_running(workers=2)
    slow = Settings(workers=2, canary=50, health_timeout=9)
    world.do(events.ReloadAsked(ticket="a", settings=slow))
    world.do(events.Ready(worker=3))
    world.wait(9)
    (report,) = world.reports
    assert isinstance(report, events.ReportReloadFailed)
    assert report.reason == "its health was not known after 9 seconds"
    assert world.list_told("work") == [1, 2]


def test_a_commit_window_keeps_the_old_generation_paused_and_then_lets_it_go() -> None:
    """The answer comes when it is final."""
    world = make_running(commit_window=5)
    world.do(events.ReloadAsked(ticket="a"))
    world.do(events.Ready(worker=2))
    assert (world.list_told("paused"), world.reports) == ([1], [])
    world.wait(5)
    assert world.reports == [events.ReportReloaded(tickets=("a",), generation=2)]
    assert world.list_told("drain") == [1]


@pytest.mark.parametrize(
    "event",
    [
        events.Health(worker=2, healthy=False),
        events.Exited(worker=2, status=1),
        events.Hung(worker=2),
    ],
)
def test_trouble_in_the_commit_window_rolls_back(event: events.Event) -> None:
    """The old generation takes work again before the new one stops."""
    world = make_running(commit_window=5)
    world.do(events.ReloadAsked(ticket="a"))
    world.do(events.Ready(worker=2))
    actions = world.do(event)
    orders = [one for one in actions if isinstance(one, events.Resume | events.Drain)]
    assert orders[0] == events.Resume(worker=1)
    assert isinstance(world.reports[0], events.ReportReloadFailed)
    world.cooperate()
    assert world.list_told("work") == [1]


def test_without_anybody_to_come_back_the_new_generation_stays() -> None:
    """A roll-back to nobody would be an outage."""
    world = make_running(commit_window=5)
    world.do(events.ReloadAsked(ticket="a"))
    world.do(events.Ready(worker=2))
    world.do(events.Exited(worker=1, status=137))
    world.do(events.Exited(worker=2, status=1))
    assert world.reports == [events.ReportReloaded(tickets=("a",), generation=2)]
    assert world.list_told("start") == [3]


def test_one_reload_at_a_time() -> None:
    """A second one is refused, or waits; all who wait are served by one."""
    world = make_running()
    for ticket, wait in (("a", False), ("b", False), ("c", True), ("d", True)):
        world.do(events.ReloadAsked(ticket=ticket, wait=wait))
    (refused,) = world.reports
    assert refused == events.ReportReloadFailed(
        tickets=("b",), reason="another reload is in progress"
    )
    world.cooperate()
    assert world.reports[1:] == [
        events.ReportReloaded(tickets=("a",), generation=2),
        events.ReportReloaded(tickets=("c", "d"), generation=3),
    ]


def test_a_stop_drains_everybody_and_ends_with_what_was_asked() -> None:
    """No worker is killed that leaves in time, and a reload in progress is answered."""
    world = make_running(workers=2)
    world.do(events.ReloadAsked(ticket="a"))
    world.do(events.StopAsked(exit_status=0))
    assert world.reports == [
        events.ReportReloadFailed(tickets=("a",), reason="the service was stopped")
    ]
    assert world.list_told("drain") == [1, 2, 3, 4]
    world.cooperate()
    assert world.finished == 0


def test_a_second_stop_with_force_kills() -> None:
    """A person who asks twice does not want to wait."""
    world = make_running()
    world.do(events.StopAsked())
    world.do(events.StopAsked())
    assert world.list_told("drain") == [1]
    world.do(events.StopAsked(force=True))
    assert world.list_told("kill") == [1]


def test_a_process_that_cannot_be_killed_is_named_and_left() -> None:
    """SIGKILL waits for a process in the kernel; a stop does not."""
    world = make_running(grace_seconds=1, cancel_seconds=1, kill_seconds=3)
    world.do(events.StopAsked())
    world.wait(2)
    assert world.list_told("kill") == [1]
    world.wait(3)
    assert world.finished == 0


def test_the_fleet_module_is_the_only_one_with_the_moves() -> None:
    """`Change` has three places where a state is set, and each looks into its table."""
    assert {name for name in vars(fleet_change.Change) if name.startswith("move")} == {
        *("move", "move_generation", "move_worker")
    }
