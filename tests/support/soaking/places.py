"""Where a service is soaked: by itself, as the first process of a container, as a unit of systemd.

Whoever soaks it is beside it: in the same namespaces, with the same numbers of processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.service_home import PATIENCE
from support.soaking.soak import ACTIONS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.service_home import Home

UNIT = "app.service"
_WAITS_FOR_RELOADS = 253
"""The systemd that has Type=notify-reload."""
_MANAGERS = ("restart", "kill of the supervisor")
"""What needs somebody who starts the service again, and keeps its listener."""


class Place:
    """By itself, as `forkfirst start` has it.

    Attributes:
        home: Its directories, and how forkfirst is run.
        actions: What can be done to it here.
        others: How many processes there are beside the supervisor and its workers.
    """

    actions: tuple[str, ...] = tuple(name for name in ACTIONS if name not in _MANAGERS)
    others = 0

    def __init__(self, home: Home) -> None:
        self.home = home

    def start(self, *flags: object) -> Path:
        """Start the service; return where its processes keep their books."""
        ledger = prepare(self.home)
        self.home.start(*self._declare("127.0.0.1:0", *flags))
        return ledger

    def _declare(self, address: str, *flags: object) -> tuple[object, ...]:
        program = f"{self.home.directory}/app.py:main"
        return (program, "--listen", f"web={address}", "--workers", WORKERS, *flags)

    def address(self) -> tuple[str, int]:
        """Return where it listens."""
        found = self.home.address("app")
        assert isinstance(found, tuple)
        return found

    def status(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return self.home.status("app")

    def read_log(self) -> str:
        """Return all that it wrote."""
        return self.home.log("app")

    def begin_reload(self, *flags: str) -> Callable[[], tuple[bool, str]]:
        """Begin a reload; what is returned waits for it: whether it reloaded, and what it said."""
        words = self.home.words("reload", "app", *flags)
        reload = self.home.open(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

        def finish() -> tuple[bool, str]:
            _, told = reload.communicate(timeout=PATIENCE)
            assert reload.returncode in (0, 70), (reload.returncode, told)
            return reload.returncode == 0, told.decode()

        return finish

    def hang_up(self) -> None:
        """Send it SIGHUP, as somebody who manages it does."""
        os.kill(self.home.pid("app"), signal.SIGHUP)

    def restart(self) -> None:
        """Stop it and start it again."""
        raise NotImplementedError

    def kill_the_supervisor(self, pid: int) -> None:
        """Kill it, and wait until there is another that is ready."""
        raise NotImplementedError

    def list_files(self) -> set[str]:
        """Return the files that are its own, without old logs."""
        return {one for one in self.home.list_files() if ".log." not in one}

    def list_processes(self) -> dict[int, str]:
        """Return all of its processes."""
        return self.home.list_processes()

    def end(self) -> None:
        """Stop it, and see that nothing is left."""
        self.home.stop("app")
        assert self.home.list_processes() == {}, self.home.list_processes()


class Container(Place):
    """As the first process of a pid namespace; `words` are what becomes that process."""

    others = 1  # the first process itself, which forked the supervisor

    def words(self, *flags: object) -> list[str]:
        """Return the command line of the first process."""
        log = ("--log", self.home.directory / "app.log")
        return self.home.words("run", *self._declare("127.0.0.1:0", *log, *flags))

    def start(self, *_: object) -> Path:
        """Find it running: whoever made the namespace has started it."""
        deadline = time.monotonic() + PATIENCE
        while self.home.forkfirst("status", "app").status != 0:
            assert time.monotonic() < deadline, self.read_log()
        return self.home.directory / "ledger"

    def read_log(self) -> str:
        """Return all that it wrote."""
        return (self.home.directory / "app.log").read_text()

    def hang_up(self) -> None:
        """Send SIGHUP to the first process, as `podman kill` does: it passes it on."""
        os.kill(1, signal.SIGHUP)

    def end(self) -> None:
        """Leave it: the end of the first process would be that of whoever asks for it here."""


class Unit(Place):
    """As a unit of a real systemd, which is asked to reload it and to restart it."""

    # Its log is the journal's to rotate, and a reload's flags are the unit's to say.
    actions = tuple(name for name in ACTIONS if name not in ("rotate", "canary", "commit window"))

    def start(self, *flags: object) -> Path:
        """Write the unit, and start it."""
        ledger = prepare(self.home)
        words = self.home.words("run", *self._declare("127.0.0.1:8200", *flags))
        reloads = int(self._systemctl("--version").split()[1]) >= _WAITS_FOR_RELOADS
        lines = [
            "[Unit]",
            "StartLimitIntervalSec=0",
            "[Service]",
            "Type=notify-reload" if reloads else "Type=notify",
            "" if reloads else "ExecReload=/bin/kill -HUP $MAINPID",
            f"ExecStart={' '.join(map(str, words))} --commit-window 0.3",
            *(f"Environment={name}={self.home.environment[name]}" for name in _PASSED),
            "RuntimeDirectory=app",
            "WatchdogSec=20",
            "Restart=on-failure",
            "FileDescriptorStoreMax=4",
            "Environment=FDSTORE=4",
            f"Environment=LEDGER={ledger}",
        ]
        Path("/etc/systemd/system", UNIT).write_text("\n".join(lines) + "\n")
        self._systemctl("daemon-reload")
        self._systemctl("start", UNIT)
        return ledger

    def status(self) -> dict[str, Any]:
        """Return what it says of itself, once it is there again."""
        deadline = time.monotonic() + PATIENCE
        while "workers" not in (found := super().status()):
            assert time.monotonic() < deadline, self.read_log()[-4000:]
        return found

    def read_log(self) -> str:
        """Return all that it wrote, and all that systemd wrote of it."""
        for words in (("--sync",), ("--unit", UNIT, "--output=cat", "--no-pager")):
            done = self.home.run("journalctl", *words)
        return done.out

    def begin_reload(self, *_: str) -> Callable[[], tuple[bool, str]]:
        """Reload the unit; before systemd 253, its words in the journal are all that tells."""
        before = len(self._list_outcomes())
        reload = self.home.open("systemctl", "reload", UNIT)

        def finish() -> tuple[bool, str]:
            assert reload.wait(PATIENCE) == 0
            deadline = time.monotonic() + PATIENCE
            while len(found := self._list_outcomes()) == before:
                assert time.monotonic() < deadline, self.read_log()
            return not found[-1].startswith("not "), found[-1]

        return finish

    def _list_outcomes(self) -> list[str]:
        said = "forkfirst: app: "
        lines = [line.removeprefix(said) for line in self.read_log().splitlines() if said in line]
        return [line for line in lines if line.startswith(("reloaded: ", "not reloaded: "))]

    def hang_up(self) -> None:
        """Have systemd send it."""
        self._systemctl("kill", "--kill-who=main", "--signal=HUP", UNIT)

    def restart(self) -> None:
        """Have systemd do it."""
        self._systemctl("restart", UNIT)

    def kill_the_supervisor(self, pid: int) -> None:
        """Kill it, and wait until systemd has another: before, it takes no reload."""
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        before = ("MainPID=0", f"MainPID={pid}")
        while (found := self._look())[0] in before or found[1] != "ActiveState=active":
            assert time.monotonic() < deadline, self.read_log()[-4000:]

    def _look(self) -> list[str]:
        return self._systemctl("show", "-p", "MainPID", "-p", "ActiveState", UNIT).split()

    def list_files(self) -> set[str]:
        """Return what is in its directory, and how much systemd keeps of it."""
        return {*os.listdir("/run/app"), f"{self._show('NFileDescriptorStore')} kept"}  # noqa: PTH208 - names are wanted

    def list_processes(self) -> dict[int, str]:
        """Return all that is in its control group."""
        group = Path("/sys/fs/cgroup" + self._show("ControlGroup"), "cgroup.procs")
        return {int(pid): "" for pid in group.read_text().split()}

    def end(self) -> None:
        """Stop it, and see what systemd says of that."""
        self._systemctl("stop", UNIT)
        found = [self._show(one) for one in ("ActiveState", "Result", "NFileDescriptorStore")]
        assert found == ["inactive", "success", "0"], (found, self.read_log()[-4000:])

    def _show(self, name: str) -> str:
        return self._systemctl("show", "--value", f"--property={name}", UNIT).strip()

    def _systemctl(self, *words: str) -> str:
        done = self.home.run("systemctl", *words)
        assert done.status == 0, (words, done, self.read_log()[-4000:])
        return done.out


_PASSED = ("PYTHONPATH", "EXAMPLES")
PLACES: dict[str, type[Place]] = {"container": Container, "unit": Unit}


def prepare(home: Home) -> Path:
    """Make what the program needs; return where its processes keep their books."""
    ledger = home.directory / "ledger"
    ledger.mkdir()
    home.environment["LEDGER"] = str(ledger)
    return ledger
