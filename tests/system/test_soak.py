"""Minutes of load, with everything that can happen to a service, and books that must balance.

FORKFIRST_SOAK_SECONDS is how long (600), FORKFIRST_SOAK_SEED what to repeat; both are printed.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from support.ledger import Kill, LedgerClients
from support.service_home import PATIENCE, PROGRAMS, holding, wait_gone
from support.source_tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.service_home import Done, Home

SECONDS = float(os.environ.get("FORKFIRST_SOAK_SECONDS", "600"))
SEED = os.environ.get("FORKFIRST_SOAK_SEED", "")
CLIENTS = 16
WORKERS = 3
STABLE_SECONDS = 5.5
SLACK = 2 << 20
"""Bytes by which the supervisor may have grown: one arena of the interpreter's, and no leak."""
BROKEN = {
    "raises": "async def main(context):\n    raise RuntimeError('no database today')\n",
    "cannot be imported": "import nosuch\n",
    "dies": "import os\nasync def main(context):\n    os.kill(os.getpid(), 9)\n",
    "hangs": "import asyncio\nasync def main(context):\n    await asyncio.sleep(3600)\n",
}
ILL = "    context.healthy = lambda: 'its cache is cold'\n    context.ready(WORD)\n"


class Size(NamedTuple):
    """What a supervisor has, beside its memory."""

    descriptors: int
    threads: int
    children: int


class Soak:
    """One service under load, and what was done to it."""

    def __init__(self, home: Home, dice: random.Random) -> None:
        self.home = home
        self.dice = dice
        self.kills: list[Kill] = []
        self.done: Counter[str] = Counter()
        self.word = "first"
        self._words = (f"word{one}" for one in itertools.count())
        self._comments = itertools.count()
        self.write(self.word)

    # -- what is done to it ------------------------------------------------------------------------

    def write(self, word: str, text: str = "") -> None:
        """Deploy code; *text* instead of the program that says *word*."""
        text = text or (PROGRAMS / "soaked.py").read_text().replace("first", word)
        # Never of the same size: Python takes a file of the same second and size for the same file.
        self.home.program("app.py", f"{text}# {next(self._comments) * 'x'}\n")

    def reload(self, *flags: object) -> Done:
        """Deploy good code by a reload that must succeed."""
        word = next(self._words)
        self.write(word)
        done = self.home.forkfirst("reload", "app", *flags)
        assert done.status == 0, done
        self.word = word
        return done

    def reload_by_signal(self) -> None:
        """Deploy good code as a manager does."""
        word = next(self._words)
        self.write(word)
        os.kill(self.home.pid("app"), signal.SIGHUP)
        self.wait_until(lambda found: found["status"] == word and found["state"] == "ready")
        self.word = word

    def break_it(self) -> None:
        """Deploy code that never becomes ready."""
        kind = self.dice.choices(list(BROKEN), (3, 3, 3, 1))[0]  # to hang takes long
        self.write("", BROKEN[kind])
        done = self.home.forkfirst("reload", "app")
        assert done.status == 70, (kind, done)
        self.write(self.word)  # or whoever is killed next would be replaced by that

    def make_it_ill(self) -> None:
        """Deploy code that becomes ready and fails its health check."""
        text = (PROGRAMS / "soaked.py").read_text().replace("first", "never")
        self.write("", text.replace("    context.ready(WORD)\n", ILL))
        flags = self.dice.choice((("--canary", "10%"), ("--commit-window", "20")))
        done = self.home.forkfirst("reload", "app", *flags)
        assert done.status == 70, done
        assert "its cache is cold" in done.err
        self.write(self.word)

    def kill_a_worker(self) -> None:
        """Kill one that serves, and has for so long that this is no failure in a row."""
        ready = [one for one in self.status()["workers"] if one["state"] == "ready"]
        stable = [one["pid"] for one in ready if one["state_seconds"] > STABLE_SECONDS]
        if stable:
            self.kill(self.dice.choice(stable))

    def kill_during_a_reload(self) -> None:
        """Kill one of either generation in the middle: it succeeds, or it changes nothing."""
        word = next(self._words)
        self.write(word)
        reload = self.home.open(*self.home.words("reload", "app"), stdout=-3, stderr=-3)
        time.sleep(self.dice.random() * 0.5)
        alive = [one["pid"] for one in self.status()["workers"] if one["pid"]]
        if alive:
            self.kill(self.dice.choice(alive))
        status = reload.wait(PATIENCE)
        assert status in (0, 70)
        self.word = word if status == 0 else self.word
        self.write(self.word)

    def kill_during_an_upgrade(self) -> None:
        """Kill a worker before, during or after the exec: one of two supervisors hears of it."""
        upgrade = self.home.open(*self.home.words("upgrade", "app"), stdout=-3, stderr=-3)
        time.sleep(self.dice.random() * 0.3)
        alive = [one["pid"] for one in self.status()["workers"] if one["pid"]]
        if alive:
            self.kill(self.dice.choice(alive))
        assert upgrade.wait(PATIENCE) == 0

    def kill(self, pid: int) -> None:
        """Send SIGKILL to a worker, unless it has ended by itself, and note when."""
        with holding(pid) as pidfd:
            if pidfd is None:
                return
            began = time.monotonic()
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            wait_gone(pidfd)
            self.kills.append(Kill(pid, began, time.monotonic()))

    def scale(self, workers: int = 0) -> None:
        """Ask for another number of workers."""
        workers = workers or self.dice.randint(1, 5)
        assert self.home.forkfirst("scale", "app", workers).status == 0

    def rotate(self) -> None:
        """Begin a new log file."""
        assert self.home.forkfirst("rotate", "app").status == 0

    def upgrade(self) -> None:
        """Replace the supervisor itself, in place."""
        done = self.home.forkfirst("upgrade", "app")
        assert done.status == 0, done

    # -- what is seen of it ------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return what the service says of itself."""
        return self.home.status("app")

    def wait_until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the service says so."""
        deadline = time.monotonic() + PATIENCE
        while not holds(found := self.status()):
            assert time.monotonic() < deadline, (found, self.home.log("app"))
        return found

    def wait_settled(self) -> dict[str, Any]:
        """Wait until all who are asked for are ready, and nobody else is left."""
        return self.wait_until(
            lambda found: (
                found["state"] == "ready"
                and [one["state"] for one in found["workers"]] == ["ready"] * found["asked"]
            )
        )

    def measure(self) -> tuple[Size, int]:
        """Return what the supervisor has with so many workers as in the beginning."""
        self.scale(WORKERS)
        found = self.wait_settled()
        proc = Path(f"/proc/{self.home.pid('app')}")
        children = (proc / f"task/{proc.name}/children").read_text().split()
        size = Size(len(list((proc / "fd").iterdir())), _count(proc), len(children))
        return size, int(found["supervisor_rss_bytes"])

    def measure_workers(self) -> set[tuple[int, int]]:
        """Return descriptors and threads of each worker, with no client left."""
        pids = [one["pid"] for one in self.wait_settled()["workers"]]
        procs = [Path(f"/proc/{pid}") for pid in pids]
        return {(len(list((proc / "fd").iterdir())), _count(proc)) for proc in procs}


def _start(soak: Soak, *flags: object) -> tuple[Path, LedgerClients]:
    """Start the service; return where its processes keep their books, and clients with theirs."""
    home = soak.home
    ledger = home.directory / "ledger"
    ledger.mkdir()
    home.environment |= {"LEDGER": str(ledger), "EXAMPLES": str(ROOT / "examples")}
    program = f"{home.directory}/app.py:main"
    home.start(program, "--listen", "web=127.0.0.1:0", "--workers", WORKERS, *flags)
    address = home.address("app")
    assert isinstance(address, tuple)
    return ledger, LedgerClients(address, CLIENTS)


def _count(proc: Path) -> int:
    return len(list((proc / "task").iterdir()))


def test_a_killed_worker_takes_with_it_only_what_it_had_in_hand(home: Home) -> None:
    """No design can save that; every other request is answered, by whoever is left."""
    soak = Soak(home, random.Random(0))  # noqa: S311 - no secret
    ledger, clients = _start(soak)
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
    seed = SEED or str(random.randrange(1 << 32))  # noqa: S311 - no secret
    soak = Soak(home, random.Random(seed))  # noqa: S311 - as above
    _say(capsys, f"\nsoak: {SECONDS:g} s, seed {seed}")
    limits = ("--crash-limit", 10_000, "--ready-timeout", "8s", "--log-size", "64KiB")
    ledger, clients = _start(soak, *limits)
    files = set(home.list_files())
    workers = soak.measure_workers()
    with clients:
        _do_all(soak)  # each once: what is only made when it is needed is there after that
        first, memory = soak.measure()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            _do_one(soak)
        soak.reload()  # who was replaced while code lay there that failed has that
        last, memory_after = soak.measure()
    _say(capsys, f"soak: {clients.sent} requests, {len(clients.failures)} lost by {soak.done}")
    _say(capsys, f"soak: supervisor {memory >> 10} → {memory_after >> 10} KiB, {last}")
    assert clients.list_errors(ledger, soak.kills)[:20] == []
    assert len(clients.failures) <= len(soak.kills) * CLIENTS
    assert {one["status"] for one in soak.wait_settled()["workers"]} == {soak.word}
    assert last == first
    assert memory_after - memory < SLACK
    assert soak.measure_workers() == workers
    assert {one for one in home.list_files() if ".log." not in one} == files
    assert len(home.list_processes()) == 1 + WORKERS
    home.stop("app")
    assert home.list_processes() == {}


ACTIONS: dict[str, tuple[int, Callable[[Soak], object]]] = {
    "reload": (4, Soak.reload),
    "reload by SIGHUP": (2, Soak.reload_by_signal),
    "canary": (1, lambda soak: soak.reload("--canary", "34")),
    "commit window": (1, lambda soak: soak.reload("--commit-window", "0.3")),
    "broken deploy": (4, Soak.break_it),
    "ill deploy": (2, Soak.make_it_ill),
    "kill": (6, Soak.kill_a_worker),
    "kill during a reload": (4, Soak.kill_during_a_reload),
    "kill during an upgrade": (3, Soak.kill_during_an_upgrade),
    "scale": (4, Soak.scale),
    "rotate": (3, Soak.rotate),
    "upgrade": (2, Soak.upgrade),
}


def _do_all(soak: Soak) -> None:
    for name in ACTIONS:
        _do(soak, name)


def _do_one(soak: Soak) -> None:
    weights = [weight for weight, _ in ACTIONS.values()]
    _do(soak, soak.dice.choices(list(ACTIONS), weights)[0])


def _do(soak: Soak, name: str) -> None:
    soak.done[name] += 1
    ACTIONS[name][1](soak)
    if soak.dice.random() < 0.7:  # else the next one comes while this one is still being digested
        soak.wait_settled()


def _say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"{text}\n")
