"""What is done to a service under load, and the books that must balance in the end."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from support.ledger import Kill, LedgerClients
from support.service_home import PATIENCE, PROGRAMS, holding, wait_gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.soaking.places import Place

SECONDS = float(os.environ.get("FORKFIRST_SOAK_SECONDS", "600"))
SECONDS_ELSEWHERE = float(os.environ.get("FORKFIRST_SOAK_ELSEWHERE_SECONDS", "60"))
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
LIMITS = ("--crash-limit", "10000", "--ready-timeout", "8s", "--log-size", "64KiB")


def choose_seed() -> str:
    """Return what the dice are thrown by, so that it can be said and repeated."""
    return os.environ.get("FORKFIRST_SOAK_SEED") or str(random.randrange(1 << 32))  # noqa: S311 - no secret


class Size(NamedTuple):
    """What a supervisor has, beside its memory."""

    descriptors: int
    threads: int
    children: int


class Soak:
    """One service under load, and what was done to it."""

    def __init__(self, place: Place, seed: str) -> None:
        self.place = place
        self.home = place.home
        self.dice = random.Random(seed)  # noqa: S311 - no secret
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
        whole = self.home.program("app.new", f"{text}# {next(self._comments) * 'x'}\n")
        whole.rename(whole.with_suffix(".py"))  # nobody reads half of it

    def reload(self, *flags: str) -> None:
        """Deploy good code by a reload that must succeed."""
        word = next(self._words)
        self.write(word)
        reloaded, said = self.place.begin_reload(*flags)()
        assert reloaded, said
        self.word = word

    def reload_by_signal(self) -> None:
        """Deploy good code as a manager does."""
        word = next(self._words)
        self.write(word)
        self.place.hang_up()
        self.wait_until(lambda found: found["status"] == word and found["state"] == "ready")
        self.word = word

    def break_it(self) -> None:
        """Deploy code that never becomes ready."""
        kind = self.dice.choices(list(BROKEN), (3, 3, 3, 1))[0]  # to hang takes long
        self.write("", BROKEN[kind])
        reloaded, said = self.place.begin_reload()()
        assert not reloaded, (kind, said)
        self.write(self.word)  # or whoever is killed next would be replaced by that

    def make_it_ill(self) -> None:
        """Deploy code that becomes ready and fails its health check."""
        text = (PROGRAMS / "soaked.py").read_text().replace("first", "never")
        self.write("", text.replace("    context.ready(WORD)\n", ILL))
        flags = self.dice.choice((("--canary", "10%"), ("--commit-window", "20")))
        reloaded, said = self.place.begin_reload(*flags)()
        assert not reloaded, said
        assert "its cache is cold" in said, said
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
        finish = self.place.begin_reload()
        time.sleep(self.dice.random() * 0.5)
        alive = [one["pid"] for one in self.status()["workers"] if one["pid"]]
        if alive:
            self.kill(self.dice.choice(alive))
        reloaded, _ = finish()
        self.word = word if reloaded else self.word
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
        done = self.home.forkfirst("scale", "app", workers)
        assert done.status == 0, done

    def rotate(self) -> None:
        """Begin a new log file."""
        done = self.home.forkfirst("rotate", "app")
        assert done.status == 0, done

    def upgrade(self) -> None:
        """Replace the supervisor itself, in place."""
        done = self.home.forkfirst("upgrade", "app")
        assert done.status == 0, done

    def restart(self) -> None:
        """Have the manager stop the service and start it; its listener is kept meanwhile."""
        self.place.restart()

    def kill_the_supervisor(self) -> None:
        """Kill it, and so its workers; the manager starts the next on what it has kept."""
        found = self.wait_settled()
        began = time.monotonic()
        self.place.kill_the_supervisor(found["pid"])
        ended = time.monotonic()
        self.kills += [Kill(one["pid"], began, ended) for one in found["workers"]]

    # -- what is seen of it ------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return what the service says of itself."""
        return self.home.status("app")

    def wait_until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the service says so."""
        deadline = time.monotonic() + PATIENCE
        while not holds(found := self.status()):
            assert time.monotonic() < deadline, (found, self.place.read_log())
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
        proc = Path(f"/proc/{found['pid']}")
        children = (proc / f"task/{proc.name}/children").read_text().split()
        size = Size(len(list((proc / "fd").iterdir())), _count(proc), len(children))
        return size, int(found["supervisor_rss_bytes"])

    def measure_workers(self) -> set[tuple[int, int]]:
        """Return descriptors and threads of each worker, with no client left."""
        pids = [one["pid"] for one in self.wait_settled()["workers"]]
        procs = [Path(f"/proc/{pid}") for pid in pids]
        return {(len(list((proc / "fd").iterdir())), _count(proc)) for proc in procs}


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
    "restart": (3, Soak.restart),
    "kill of the supervisor": (3, Soak.kill_the_supervisor),
}


def run(soak: Soak, seconds: float, say: Callable[[str], object]) -> None:
    """Start the service, do everything to it for so long, and compare all that can be compared.

    Raises:
        AssertionError: Something was lost, or was left.
    """
    place = soak.place
    ledger = place.start(*LIMITS)
    clients = LedgerClients(place.address(), CLIENTS)
    files = place.list_files()
    workers = soak.measure_workers()
    with clients:
        for name in place.actions:  # what is only made when it is needed is there after that
            _do(soak, name)
        first, memory = soak.measure()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            _do_one(soak)
        soak.reload()  # who was replaced while code lay there that failed has that
        last, memory_after = soak.measure()
    say(f"soak: {clients.sent} requests, {len(clients.failures)} lost by {soak.done}")
    say(f"soak: supervisor {memory >> 10} → {memory_after >> 10} KiB, {last}")
    errors = clients.list_errors(ledger, soak.kills)
    assert not errors, errors[:20]
    assert len(clients.failures) <= len(soak.kills) * CLIENTS
    refused = [one for one in clients.failures if "Refused" in one.what]
    assert not refused, refused[:20]  # whoever died, somebody has the listener
    words = {one["status"] for one in soak.wait_settled()["workers"]}
    assert words == {soak.word}, (words, soak.word)
    assert last == first, (last, first)
    assert memory_after - memory < SLACK, (memory, memory_after)
    assert (after := soak.measure_workers()) == workers, (after, workers)
    assert (left := place.list_files()) == files, (left, files)
    assert len(running := place.list_processes()) == place.others + 1 + WORKERS, running
    place.end()


def _do_one(soak: Soak) -> None:
    names = soak.place.actions
    weights = [ACTIONS[name][0] for name in names]
    _do(soak, soak.dice.choices(names, weights)[0])


def _do(soak: Soak, name: str) -> None:
    soak.done[name] += 1
    ACTIONS[name][1](soak)
    if soak.dice.random() < 0.7:  # else the next one comes while this one is still being digested
        soak.wait_settled()


def _count(proc: Path) -> int:
    return len(list((proc / "task").iterdir()))
