"""Minutes of load, with everything that can happen to a service, and books that must balance.

FORKFIRST_SOAK_SECONDS is how long (600), FORKFIRST_SOAK_ELSEWHERE_SECONDS how long in a container
and under systemd (60), FORKFIRST_SOAK_SEED what to repeat; it is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.ledger import LedgerClients
from support.service_home import PATIENCE
from support.soaking import places
from support.soaking.soak import CLIENTS, LIMITS, SECONDS, SECONDS_ELSEWHERE, Soak, choose_seed, run
from support.source_tree import ROOT

if TYPE_CHECKING:
    from support.service_home import Home

NAMESPACES = ("unshare", "--fork", "--kill-child", "--pid", "--mount-proc")


@pytest.fixture(autouse=True)
def examples(home: Home) -> None:
    """Let the program find the example that it is made of."""
    home.environment["EXAMPLES"] = str(ROOT / "examples")


def test_a_killed_worker_takes_with_it_only_what_it_had_in_hand(home: Home) -> None:
    """No design can save that; every other request is answered, by whoever is left."""
    place = places.Place(home)
    soak = Soak(place, "0")
    ledger = place.start()
    clients = LedgerClients(place.address(), CLIENTS)
    with clients:
        clients.wait_for_more(100)
        soak.kill(soak.wait_settled()["workers"][0]["pid"])
        clients.wait_for_more(200)
    assert clients.list_errors(ledger, soak.kills) == []
    assert len(clients.failures) <= CLIENTS
    assert clients.list_errors(ledger, []) != [] or not clients.failures, (
        "shown to find what is lost"
    )


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_everything_at_once_loses_nothing_and_leaves_nothing(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what was in the hands of a worker that was killed may fail, and each one is known."""
    seed = choose_seed()

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"{text}\n")

    say(f"\nsoak: {SECONDS:g} s, seed {seed}")
    run(Soak(places.Place(home), seed), SECONDS, say)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(SECONDS_ELSEWHERE + 300)
def test_the_same_as_the_first_process_of_a_container(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told by other signals, and is the parent of all who lose theirs."""
    done = subprocess.run((*NAMESPACES, "true"), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a pid namespace cannot be made here: {done.stderr.strip()}")
    place, seed = places.Container(home), choose_seed()
    places.prepare(home)
    Soak(place, seed).write("first")
    with home.open(*NAMESPACES, *place.words(*LIMITS), stderr=subprocess.DEVNULL) as first:
        try:
            pid = _find_first(first.pid)
            found = _soak_beside(home, pid, seed)
            with capsys.disabled():
                sys.stdout.write(f"\nsoak of process 1, seed {seed}\n{found.stdout}")
            assert found.returncode == 0, (found.stdout, place.read_log()[-4000:])
            os.kill(pid, signal.SIGTERM)
            assert first.wait(PATIENCE) == 0
        finally:
            first.kill()
    assert home.list_processes() == {}


def _soak_beside(home: Home, first: int, seed: str) -> subprocess.CompletedProcess[str]:
    """Soak from within the namespaces of the process *first*, as `podman exec` would."""
    beside = ("nsenter", f"--target={first}", "--pid", "--mount", "--", sys.executable)
    words = ("-m", "support.soaking", "container", home.directory, SECONDS_ELSEWHERE, seed)
    environment = home.environment | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    del environment["FORKFIRST_STATE_DIR"]  # what has that is taken for the service's
    return subprocess.run(
        [*beside, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _find_first(unshare: int) -> int:
    """Return the process that *unshare* forks into the namespace."""
    deadline = time.monotonic() + PATIENCE
    children = Path(f"/proc/{unshare}/task/{unshare}/children")
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline
    return int(found[0])
