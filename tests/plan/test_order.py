"""In which order a service is started: the laws that every plan keeps, whatever was declared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.errors import ConfigError
from forkfirst.plan import order, preparation, steps
from forkfirst.plan.host import Host
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.service import Declaration
from forkfirst.stages import packing

if TYPE_CHECKING:
    from forkfirst.plan.plan import Plan

HOSTS = st.builds(
    Host,
    uid=st.sampled_from([0, 1000]),
    pid=st.sampled_from([1, 4711]),
    home=st.just("/home/me"),
    directory=st.just("/here"),
    state_directory=st.sampled_from(["", "/state"]),
    foreign_variables=st.sampled_from([(), ("LISTEN_FDS", "NOTIFY_SOCKET")]),
)
PROGRAMS = st.sampled_from([{"target": "app.py:main"}, {"command": ("sleep", "1")}])
LISTENERS = st.lists(
    st.sampled_from(["a=8000", "b=unix:/run/b", "c=[::1]:80", "d=udp:53"]).map(parse_listener),
    max_size=4,
).map(tuple)
SERVICES = st.builds(
    lambda program, **fields: Declaration(name="app", **program, **fields),
    PROGRAMS,
    listeners=LISTENERS,
    runtime=st.sampled_from(["auto", "asyncio", "uvloop", "trio", "none"]),
    directory=st.sampled_from(["", "/srv"]),
    log=st.sampled_from(["", "/logs/app.log"]),
    environment=st.sampled_from([(), (("A", "1"),)]),
)
PLANS = st.builds(order.make_plan, SERVICES, HOSTS, foreground=st.booleans())


def kinds(chosen: tuple[steps.Step, ...]) -> list[type[steps.Step]]:
    return [type(step) for step in chosen]


def assert_order(chosen: tuple[steps.Step, ...], *wanted: type[steps.Step]) -> None:
    """Those of *wanted* that are in *chosen* must stand there in that order."""
    found = kinds(chosen)
    there = [found.index(kind) for kind in wanted if kind in found]
    assert there == sorted(there)


@given(PLANS)
def test_the_lock_is_taken_before_anything_that_others_could_disturb(plan: Plan) -> None:
    """N7: who has not got the lock has touched nothing of the one that runs."""
    touching = (
        preparation.OpenLog,
        preparation.OpenListener,
        preparation.OpenControlSocket,
        preparation.KeepRecord,
    )
    for kind in touching:
        assert_order(plan.launcher, preparation.LockPidFile, kind)
    assert preparation.LockPidFile in kinds(plan.launcher)


@given(PLANS)
def test_what_is_certain_to_fail_is_found_before_anything_is_made(plan: Plan) -> None:
    """A mistyped target makes no directory."""
    assert_order(plan.launcher, preparation.CheckTarget, preparation.MakeDirectory)
    assert_order(plan.launcher, preparation.CheckCommand, preparation.MakeDirectory)


@given(SERVICES, HOSTS)
def test_every_listener_is_opened_once_in_the_order_of_its_declaration(
    service: Declaration, host: Host
) -> None:
    """Before the handover: a start that fails at a port has not loaded the program."""
    plan = order.make_plan(service, host)
    opened = [step.listener for step in plan.launcher if isinstance(step, preparation.OpenListener)]
    assert tuple(opened) == service.listeners
    assert_order(plan.launcher, preparation.OpenListener, preparation.HandOver)
    assert preparation.OpenListener not in kinds(plan.worker)


@given(PLANS)
def test_the_service_is_right_before_its_program_runs(plan: Plan) -> None:
    """Signals, then streams, then descriptors, then the pid; a thread after all of them."""
    assert_order(
        plan.worker,
        steps.ResetSignalHandlers,
        steps.UnblockSignals,
        steps.CleanEnvironment,
        steps.RedirectStandardStreams,
        steps.CloseDescriptors,
        steps.WritePid,
        steps.ServeControl,
        steps.RunProgram,
    )
    assert kinds(plan.worker)[-1] is steps.RunProgram


@given(PLANS)
def test_whoever_detaches_forks_twice_and_waits_last(plan: Plan) -> None:
    """The fork comes before all that needs the declaration; the launcher leaves last."""
    if plan.mode != order.DAEMON:
        return
    assert kinds(plan.first)[-1] is steps.Fork
    assert kinds(plan.leader) == [steps.StartSession, steps.ForkAgain]
    assert kinds(plan.launcher)[-1] is preparation.HandOver
    assert kinds(plan.steps)[-1] is preparation.AwaitReady
    assert_order(plan.first, steps.HoldStandardDescriptors, steps.OpenReport, steps.Fork)
    assert_order(plan.first, steps.JudgeFork, steps.Fork)


@given(SERVICES, HOSTS)
def test_a_foreground_detaches_nothing(service: Declaration, host: Host) -> None:
    """Its supervisor chose the session, the descriptors, the signals and the directory."""
    plan = order.make_plan(service, host, foreground=True)
    detaching = {
        *(steps.StartSession, steps.ForkAgain, steps.CloseDescriptors, preparation.HandOver),
        *(steps.ResetSignalHandlers, preparation.AwaitReady),
    }
    assert not detaching & set(kinds(plan.steps))
    changes = [step for step in plan.worker if isinstance(step, steps.ChangeDirectory)]
    assert [step.path for step in changes] == ([service.directory] if service.directory else [])
    assert (steps.RedirectStandardStreams in kinds(plan.worker)) == bool(service.log)


@given(PLANS)
def test_process_1_never_detaches(plan: Plan) -> None:
    """It forks once, last of all, so that it can reap and forward."""
    if plan.mode != order.FIRST_PROCESS:
        assert kinds(plan.steps).count(steps.Fork) == (plan.mode == order.DAEMON)
        return
    assert kinds(plan.launcher)[-2:] == [steps.JudgeFork, steps.Fork]
    assert kinds(plan.steps).count(steps.Fork) == 1
    assert steps.StartSession not in kinds(plan.steps)


@pytest.mark.parametrize("foreground", [False, True])
@given(service=SERVICES, host=HOSTS)
def test_the_mode_is_decided_by_the_pid_and_the_wish(
    service: Declaration, host: Host, *, foreground: bool
) -> None:
    """In this order: a container's first process has no choice."""
    mode = order.make_plan(service, host, foreground=foreground).mode
    if host.pid == 1:
        assert mode == order.FIRST_PROCESS
    else:
        assert mode == (order.FOREGROUND if foreground else order.DAEMON)


@pytest.mark.parametrize("foreground", [False, True])
@given(service=SERVICES, host=HOSTS)
def test_a_plan_depends_on_nothing_but_what_it_is_given(
    service: Declaration, host: Host, *, foreground: bool
) -> None:
    """So that `forkfirst plan` prints what `start` does."""
    first = order.make_plan(service, host, foreground=foreground)
    assert first == order.make_plan(service, host, foreground=foreground)
    assert hash(first) == hash(order.make_plan(service, host, foreground=foreground))


@given(PLANS)
def test_a_plan_arrives_as_it_was_sent(plan: Plan) -> None:
    """It is passed from the launcher to the service."""
    assert packing.unpack(packing.pack(plan)) == plan


@given(PLANS)
def test_every_step_says_what_it_does_in_one_line_with_its_manual_page(plan: Plan) -> None:
    """As a phrase that "cannot …" can be put before."""
    for step in plan.steps:
        text = step.describe()
        assert text
        assert "\n" not in text
        assert re.match(r"[a-z]+ ", text), text
        assert not text.endswith(".")
        assert re.fullmatch(r"[a-z_0-9]+\(\d\)", step.manual), step


@given(PLANS)
def test_variables_of_others_are_removed_and_those_asked_for_are_set(plan: Plan) -> None:
    """In one step, which every mode has."""
    (step,) = (step for step in plan.worker if isinstance(step, steps.CleanEnvironment))
    assert set(plan.service.environment) <= set(step.assign)


def test_the_foreign_variables_are_the_hosts() -> None:
    """Whoever read them decided that they are foreign."""
    host = Host(uid=0, pid=2, home="/", directory="/", foreign_variables=("LISTEN_FDS",))
    plan = order.make_plan(Declaration(name="a", target="a:b"), host)
    (step,) = (step for step in plan.worker if isinstance(step, steps.CleanEnvironment))
    assert step.remove == ("LISTEN_FDS",)


def test_a_daemon_is_in_the_root_directory_unless_told_otherwise() -> None:
    """daemon(7), step 11."""
    host = Host(uid=0, pid=2, home="/", directory="/here")

    def read_directory(**fields: str) -> str:
        plan = order.make_plan(Declaration(name="a", target="a:b", **fields), host)  # type: ignore[arg-type]
        (step,) = (step for step in plan.worker if isinstance(step, steps.ChangeDirectory))
        return step.path

    assert read_directory() == "/"
    assert read_directory(directory="/srv") == "/srv"


@pytest.mark.parametrize("runtime", ["auto", "asyncio", "uvloop", "trio", "none"])
def test_asyncio_is_imported_early_only_where_it_will_be_used(runtime: str) -> None:
    """Every page of a module that is not used is a page too many."""
    host = Host(uid=0, pid=2, home="/", directory="/")
    plan = order.make_plan(Declaration(name="a", target="a:b", runtime=runtime), host)
    modules = [step.module for step in plan.early if isinstance(step, steps.ImportRuntimeModule)]
    assert modules == (["asyncio"] if runtime in {"auto", "asyncio"} else [])
    command = order.make_plan(Declaration(name="a", command=("sleep", "1")), host)
    assert command.early == ()


def test_a_service_that_could_not_run_has_no_plan() -> None:
    """It is refused before anything is decided."""
    with pytest.raises(ConfigError):
        order.make_plan(Declaration(name="a"), Host(uid=0, pid=2, home="/", directory="/"))


def test_no_step_of_daemon_7_is_missing() -> None:
    """All but 8, for which the leader waits until READY, and 13, which was not asked for."""
    host = Host(uid=0, pid=2, home="/", directory="/")
    plan = order.make_plan(Declaration(name="a", target="a:b"), host)
    taken = {step.sysv for step in plan.steps}
    assert set(range(1, 16)) - taken <= {8, 13}
