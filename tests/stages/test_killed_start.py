"""kill -9 after every single step of a start, of each of its processes.

The step table makes it a loop: every step that the plan has today, and every one that it will have.
"""

from __future__ import annotations

import signal
import sys

import pytest

from forkfirst.plan import order, preparation, steps
from forkfirst.plan.host import Host
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.service import Declaration
from support.service_home import PROGRAMS, Home

PLAN = order.make_plan(
    Declaration(
        name="app", target="daemons.py:wait", listeners=(parse_listener("web=127.0.0.1:0"),)
    ),
    Host(uid=1, pid=2, home="/home", directory="/"),
)
WHO = {"launcher": (*PLAN.first, *PLAN.launcher, *PLAN.last), "leader": PLAN.leader}


def who_takes(step: steps.Step) -> str:
    return next((who for who, chosen in WHO.items() if step in chosen), "service")


def who_is_there(step: steps.Step) -> tuple[str, ...]:
    """Which processes there are, or will soon be, when *step* has been taken."""
    if isinstance(step, preparation.AwaitReady):
        return ("launcher",)
    if step in PLAN.first and not isinstance(step, steps.Fork):
        return ("launcher",)
    if isinstance(step, steps.StartSession):
        return ("launcher", "leader")
    return ("launcher", "leader", "service")


# The last step of the service is the program itself, which does not return.
KILLS = [
    (number, victim)
    for number, step in enumerate(PLAN.steps)
    if not isinstance(step, steps.RunProgram)
    for victim in who_is_there(step)
]


def describe(value: object) -> str:
    return f"{type(PLAN.steps[value]).__name__}-{value}" if isinstance(value, int) else str(value)


def kill_and_start_again(home: Home, number: int, victim: str) -> None:
    done = home.run(sys.executable, PROGRAMS / "killed_start.py", number, victim)
    if done.status == -signal.SIGKILL:
        assert victim == "launcher"
        # After the last step it was ready, and stands alone.
        if not isinstance(PLAN.steps[number], preparation.AwaitReady):
            home.wait_alone()
    elif done.status == 0:
        assert victim == "leader", "only the leader can be spared"
        assert list(home.list_processes()) == [home.pid("app")]
        assert home.status("app")["state"] == "ready"
    else:
        assert (home.list_processes(), home.list_files()) == ({}, []), done
    if home.list_processes():
        home.stop("app")
    home.start(f"{PROGRAMS / 'daemons.py'}:wait", "--name", "app", "--listen", "web=127.0.0.1:0")
    assert list(home.list_processes()) == [home.pid("app")]
    home.stop("app")
    assert home.list_processes() == {}
    assert home.list_files() == ["app.log", "run/app.service"]


@pytest.mark.parametrize(
    ("number", "victim"),
    [kill for kill in KILLS if kill[1] == who_takes(PLAN.steps[kill[0]])],
    ids=describe,
)
def test_whoever_dies_after_its_own_step_spoils_nothing(
    home: Home, number: int, victim: str
) -> None:
    """Nothing of it stays, and the next start neither fails nor needs a hand."""
    kill_and_start_again(home, number, victim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "victim"),
    [kill for kill in KILLS if kill[1] != who_takes(PLAN.steps[kill[0]])],
    ids=describe,
)
def test_whoever_dies_after_anybodys_step_spoils_nothing(
    home: Home, number: int, victim: str
) -> None:
    """The same for each of the others at that moment."""
    kill_and_start_again(home, number, victim)


def test_every_step_is_followed_by_a_kill() -> None:
    """A loop that skips some is no proof."""
    killed = {number for number, _ in KILLS}
    assert killed == set(range(len(PLAN.steps))) - {
        number for number, step in enumerate(PLAN.steps) if isinstance(step, steps.RunProgram)
    }
