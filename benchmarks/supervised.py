"""Every supervisor of workers that is measured: how it is started, reloaded and found again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / "peers"
BIN = Path(sys.executable).parent
WORKERS = 2
PATIENCE = 60.0


class Place(NamedTuple):
    """Where one peer runs: a directory of its own, and a port that nobody has."""

    directory: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables for all of its commands."""
        unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
        found = {name: value for name, value in os.environ.items() if name not in unwanted}
        found |= {"FORKFIRST_STATE_DIR": str(self.directory), "PM2_HOME": str(self.directory)}
        return found | {"PORT": str(self.port), "PYTHONPATH": str(PEERS)}

    def run(self, *words: object) -> str:
        """Run a command to its end, which must be a good one."""
        return subprocess.run(
            [str(one) for one in words],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout

    def spawn(self, *words: object) -> int:
        """Start a command that stays; return its pid."""
        with (self.directory / "output").open("ab") as output:
            return subprocess.Popen(
                [str(one) for one in words],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ).pid


class Supervisor(NamedTuple):
    """One of them.

    Attributes:
        name: What the table calls it, with its version.
        start: Starts it and returns the pid of the process that keeps the workers.
        reload: Asks for new workers; may return before they serve.
        stop: Ends it, given that pid.
    """

    name: str
    start: Callable[[Place], int]
    reload: Callable[[Place, int], object]
    stop: Callable[[Place, int], object]


def list_workers(parent: int) -> list[int]:
    """Return the children of *parent* that serve: not those that only watch over shared memory."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(one) for one in children if b"resource_tracker" not in _read_command(one)]


def _read_command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"resource_tracker"  # gone meanwhile


def wait_replaced(parent: int, before: list[int]) -> None:
    """Wait until *parent* has as many workers as before, and none of those."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = list_workers(parent)
        if len(now) == len(before) and not set(now) & set(before):
            return
        if time.monotonic() > deadline:
            message = f"workers {before} were not all replaced, there are {now}"
            raise TimeoutError(message)
        time.sleep(0.02)


def _hup(_: Place, parent: int) -> None:
    os.kill(parent, signal.SIGHUP)


def _terminate(_: Place, parent: int) -> None:
    os.kill(parent, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitpid(parent, os.WNOHANG)[0]:
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(parent, signal.SIGKILL)


def _server(name: str, *words: str) -> Supervisor:
    """Return a server of ASGI applications that supervises its own workers."""

    def start(place: Place) -> int:
        fields = {"port": place.port, "workers": WORKERS}
        return place.spawn(BIN / name, *(one.format(**fields) for one in words))

    return Supervisor(f"{name} {version(name)}", start, _hup, _terminate)


# -- those with commands of their own -----------------------------------------------------------


def _forkfirst(server: str = "") -> Supervisor:
    """Return ourselves: with examples/hello.py, or with the application in that *server*."""
    flags: tuple[str, ...] = ("--serve", server) if server else ()
    if server == "uvicorn":
        flags += ("--serve-option", "access-log=false")

    def start(place: Place) -> int:
        target = f"{PEERS / 'asgi_app.py'}:app" if server else f"{ROOT / 'examples/hello.py'}:main"
        listen = f"web=127.0.0.1:{place.port}"
        words = ("start", target, "--name", "bench", "--listen", listen, "--workers", WORKERS)
        place.run(BIN / "forkfirst", *words, *flags)
        status = json.loads(place.run(BIN / "forkfirst", "status", "bench", "--json"))
        return int(status["pid"])

    return Supervisor(
        f"**forkfirst {version('forkfirst')}**" + (f" --serve {server}" if server else ""),
        start,
        lambda place, _: place.run(BIN / "forkfirst", "reload", "bench"),
        lambda place, _: place.run(BIN / "forkfirst", "stop", "bench"),
    )


def _supervisord() -> Supervisor:
    def start(place: Place) -> int:
        config = place.directory / "supervisord.conf"
        config.write_text(
            f"[unix_http_server]\nfile={place.directory}/s\n[supervisord]\nnodaemon=true\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory="
            "supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{place.directory}/s\n"
            f"[fcgi-program:web]\nsocket=tcp://127.0.0.1:{place.port}\nnumprocs={WORKERS}\n"
            f"process_name=%(process_num)d\ncommand={sys.executable} {PEERS}/inherited.py 0\n"
        )
        return place.spawn(BIN / "supervisord", "-c", config)

    def restart(place: Place, _: int) -> None:
        place.run(BIN / "supervisorctl", "-c", "supervisord.conf", "restart", "web:*")

    return Supervisor(f"supervisord {version('supervisor')}", start, restart, _terminate)


def _circus() -> Supervisor:
    def start(place: Place) -> int:
        config = place.directory / "circus.ini"
        at = f"ipc://{place.directory}"
        config.write_text(
            f"[circus]\nendpoint={at}/c\npubsub_endpoint={at}/p\n"
            f"[socket:web]\nhost=127.0.0.1\nport={place.port}\nbacklog=4096\n"
            f"[watcher:web]\nuse_sockets=True\nnumprocesses={WORKERS}\ncopy_env=True\n"
            f"cmd={sys.executable} {PEERS}/inherited.py $(circus.sockets.web)\n"
        )
        return place.spawn(BIN / "circusd", config)

    def reload(place: Place, _: int) -> None:
        place.run(BIN / "circusctl", "--endpoint", f"ipc://{place.directory}/c", "reload", "web")

    return Supervisor(f"circus {version('circus')}", start, reload, _terminate)


def _pm2(program: str) -> Supervisor:
    def start(place: Place) -> int:
        flags = ("-i", WORKERS, "--name", "bench", "--wait-ready", "--kill-timeout", 10_000)
        place.run(program, "start", PEERS / "cluster.js", *flags)
        return int((place.directory / "pm2.pid").read_text())

    found = json.loads((Path(program).resolve().parent.parent / "package.json").read_text())
    return Supervisor(
        f"PM2 {found['version']}, cluster mode (Node)",
        start,
        lambda place, _: place.run(program, "reload", "bench"),
        lambda place, _: place.run(program, "kill"),
    )


def find_supervisors() -> list[Supervisor]:
    """Return those that are installed here; forkfirst first."""
    found = [_forkfirst()]
    found += [_forkfirst(one) for one in ("uvicorn", "hypercorn", "granian") if find_spec(one)]
    found += [make() for module, make in _PEERS.items() if find_spec(module)]
    beside = Path(sys.prefix) / "npm" / "node_modules" / ".bin" / "pm2"
    pm2 = str(beside) if beside.exists() else shutil.which("pm2")
    return [*found, _pm2(pm2)] if pm2 else found


_COMMON = ("asgi_app:app", "--workers", "{workers}")
_PEERS: dict[str, Callable[[], Supervisor]] = {
    "gunicorn": lambda: _server("gunicorn", "-k", "asgi", *_COMMON, "--bind", "127.0.0.1:{port}"),
    "uvicorn": lambda: _server("uvicorn", *_COMMON, "--port", "{port}", "--no-access-log"),
    "hypercorn": lambda: _server("hypercorn", *_COMMON, "--bind", "127.0.0.1:{port}"),
    "granian": lambda: _server("granian", "--interface", "asgi", *_COMMON, "--port", "{port}"),
    "supervisor": _supervisord,
    "circus": _circus,
}
