"""Every way to start the server that this machine has; and why it lacks the others."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Skipped
from starting import Way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PEERS = Path(__file__).parent / "peers"
PYTHON = sys.executable
FORKFIRST = str(Path(PYTHON).parent / "forkfirst")

BARE = "`python app.py`, bare, in the foreground"
OURS = "**`forkfirst start`**"


def find_ways() -> tuple[list[Way], list[Skipped]]:
    """Return what can be measured here, and what cannot with the reason."""
    ways: list[Way] = []
    skipped: list[Skipped] = []
    for name, probe, make in _ALL:
        why = probe()
        if why:
            skipped.append(Skipped(name, why))
        else:
            ways.append(make(name))
    return ways, skipped


def start_with_forkfirst(port: int, _: Path) -> Sequence[str]:
    """Return the command that is measured above all."""
    target = f"{PEERS / 'app.py'}:main"
    return (
        *(FORKFIRST, "start", target, "--name", f"bench-{port}"),
        *("--listen", f"web=127.0.0.1:{port}"),
    )


def stop_with_forkfirst(port: int, _: Path) -> Sequence[str]:
    """Return the command that ends it."""
    return FORKFIRST, "stop", f"bench-{port}"


def prepare_pm2() -> None:
    """Start PM2's own daemon, so that its start is not counted as the program's."""
    if find_pm2():
        subprocess.run([find_pm2(), "ping"], capture_output=True, check=False, timeout=60)


def clean_up_pm2() -> None:
    """End PM2's own daemon."""
    if find_pm2():
        subprocess.run([find_pm2(), "kill"], capture_output=True, check=False, timeout=60)


def find_pm2() -> str:
    """Return the path of PM2, from beside this Python or from the PATH; "" if there is none."""
    beside = Path(sys.prefix) / "npm" / "node_modules" / ".bin" / "pm2"
    return str(beside) if beside.exists() else shutil.which("pm2") or ""


# -- what each way needs -------------------------------------------------------------------------


def _nothing() -> str:
    return ""


def _needs_module(name: str) -> Callable[[], str]:
    def probe() -> str:
        return "" if importlib.util.find_spec(name) else f"the package {name} is not installed"

    return probe


def _needs_program(name: str) -> Callable[[], str]:
    def probe() -> str:
        return "" if shutil.which(name) else f"the program {name} is not installed"

    return probe


def _needs_notify_await() -> str:
    if not shutil.which("start-stop-daemon"):
        return "the program start-stop-daemon is not installed"
    told = subprocess.run(
        ["start-stop-daemon", "--help"], capture_output=True, text=True, check=False
    )
    return "" if "--notify-await" in told.stdout else "this start-stop-daemon is too old for it"


def _needs_systemd() -> str:
    if not shutil.which("systemd-run"):
        return "the program systemd-run is not installed"
    return "" if Path("/run/systemd/system").is_dir() else "this machine was not booted by systemd"


def _needs_pm2() -> str:
    return "" if find_pm2() else "PM2 is not installed (npm could not install it, or is not there)"


# -- how each way starts the server --------------------------------------------------------------


def _script(file: str, *more: str, census: bool = True) -> Callable[[str], Way]:
    def command(port: int, directory: Path) -> Sequence[str]:
        extra = [str(directory) if word == "DIRECTORY" else word for word in more]
        return (PYTHON, str(PEERS / file), str(port), *extra)

    return lambda name: Way(name, command, foreground=file == "app.py", census=census)


def _twistd(name: str) -> Way:
    def command(_: int, directory: Path) -> Sequence[str]:
        twistd = str(Path(PYTHON).parent / "twistd")
        return (
            *(twistd, f"--pidfile={directory}/twistd.pid", f"--logfile={directory}/twistd.log"),
            *("--no_save", f"--python={PEERS / 'with_twistd.py'}"),
        )

    return Way(name, command, census=True)


def _start_stop_daemon(*more: str) -> Callable[[str], Way]:
    def command(port: int, directory: Path) -> Sequence[str]:
        return (
            *("start-stop-daemon", "--start", "--quiet", "--background", *more),
            *("--make-pidfile", "--pidfile", str(directory / f"{port}.pid")),
            *("--startas", PYTHON, "--", str(PEERS / "app.py"), str(port)),
        )

    return lambda name: Way(name, command)


def _daemonize_program(name: str) -> Way:
    def command(port: int, _: Path) -> Sequence[str]:
        return "daemonize", PYTHON, str(PEERS / "app.py"), str(port)

    return Way(name, command)


def _systemd_run(name: str) -> Way:
    def command(port: int, _: Path) -> Sequence[str]:
        manager = () if os.getuid() == 0 else ("--user",)
        return (
            *("systemd-run", *manager, "--quiet", "--collect", "--service-type=notify"),
            *(f"--unit=bench-{port}", PYTHON, str(PEERS / "app.py"), str(port)),
        )

    return Way(name, command)


def _pm2(name: str) -> Way:
    def command(port: int, _: Path) -> Sequence[str]:
        return (
            *(find_pm2(), "start", str(PEERS / "app.py"), "--interpreter", PYTHON),
            *("--name", f"bench-{port}", "--", str(port)),
        )

    return Way(name, command, stop=lambda port, _: (find_pm2(), "delete", f"bench-{port}"))


def _forkfirst(name: str) -> Way:
    return Way(name, start_with_forkfirst, stop=stop_with_forkfirst, census=True)


_ALL: tuple[tuple[str, Callable[[], str], Callable[[str], Way]], ...] = (
    (BARE, _nothing, _script("app.py", census=False)),
    (OURS, _nothing, _forkfirst),
    ("two forks by hand, nobody waits", _nothing, _script("double_fork.py")),
    ("two forks by hand and a pipe", _nothing, _script("ready_pipe.py")),
    ("the same, asyncio imported early", _nothing, _script("ready_pipe.py", "early")),
    ("python-daemon", _needs_module("daemon"), _script("with_python_daemon.py")),
    ("daemonize (Python)", _needs_module("daemonize"), _script("with_daemonize.py", "DIRECTORY")),
    ("daemonocle", _needs_module("daemonocle"), _script("with_daemonocle.py", "DIRECTORY")),
    ("twistd (a Twisted server)", _needs_module("twisted"), _twistd),
    (
        "start-stop-daemon --background",
        _needs_program("start-stop-daemon"),
        _start_stop_daemon(),
    ),
    (
        "start-stop-daemon --background --notify-await",
        _needs_notify_await,
        _start_stop_daemon("--notify-await"),
    ),
    ("daemonize(1)", _needs_program("daemonize"), _daemonize_program),
    ("systemd-run --service-type=notify", _needs_systemd, _systemd_run),
    ("PM2, its own daemon running already", _needs_pm2, _pm2),
)
