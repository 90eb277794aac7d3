"""Requests per second of an application: `forkfirst --serve` beside the servers' own workers.

python benchmarks/serve.py                  # writes the section of benchmarks/RESULTS.md
python benchmarks/serve.py --rounds 3       # a look, which is not written

All servers stand by at the same time, each with two workers; `wrk` asks one after the other, over
64 connections that it keeps. Both of a pair have the same runtime, parser and options.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from measure import Case, Samples, describe_machine, interleave, put_section, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

PEERS = Path(__file__).parent / "peers"
BAR = 1.0
WORKERS = "2"
SECONDS = 2
QUIET = ("--serve-option", "access-log=false", "--serve-option", "log-level=warning")


class Pair(NamedTuple):
    """The same server twice: in our workers, and in those of *theirs*.

    Attributes:
        theirs: The command as a person would type it.
        needs: The modules that it needs.
        ours: The flags of forkfirst.
        their_flags: The rest of their command line; {port} is where to listen.
        listen: Where ours listens. With `?reuseport=1` each worker has a socket of its own, as it
            has in those of theirs that do the same.
    """

    theirs: str
    needs: tuple[str, ...]
    ours: tuple[str, ...]
    their_flags: tuple[str, ...]
    listen: str = "127.0.0.1:{port}"

    @property
    def is_there(self) -> bool:
        """Whether all that it needs is installed."""
        return all(find_spec(name) is not None for name in self.needs)


_UVICORN = ("asgi_app:app", "--port", "{port}", "--no-access-log", "--log-level", "warning")
_OWN_SOCKETS = "127.0.0.1:{port}?reuseport=1"
_GRANIAN = (
    *("asgi_app:app", "--port", "{port}", "--interface", "asgi", "--log-level", "warning"),
    *("--workers", WORKERS),
)
PAIRS = (
    Pair(
        "uvicorn --workers",
        ("uvicorn",),
        ("--serve", "uvicorn", "--runtime", "asyncio", *QUIET),
        ("uvicorn", *_UVICORN, "--loop", "asyncio", "--workers", WORKERS),
    ),
    Pair(
        "uvicorn --workers, uvloop",
        ("uvicorn", "uvloop"),
        ("--serve", "uvicorn", "--runtime", "uvloop", *QUIET),
        ("uvicorn", *_UVICORN, "--loop", "uvloop", "--workers", WORKERS),
    ),
    Pair(
        "gunicorn with uvicorn's workers, uvloop",
        ("gunicorn", "uvicorn_worker", "uvloop"),
        ("--serve", "uvicorn", "--runtime", "uvloop", *QUIET),
        (
            *("gunicorn", "asgi_app:app", "--bind", "127.0.0.1:{port}", "--workers", WORKERS),
            *("--worker-class", "uvicorn_worker.UvicornWorker", "--log-level", "warning"),
        ),
    ),
    Pair(
        "hypercorn -w",
        ("hypercorn",),
        ("--serve", "hypercorn", "--runtime", "asyncio", "--serve-option", "loglevel=warning"),
        (
            *("hypercorn", "asgi_app:app", "--bind", "127.0.0.1:{port}", "-w", WORKERS),
            *("--worker-class", "asyncio", "--log-level", "warning"),
        ),
    ),
    Pair(
        "granian --workers",
        ("granian",),
        ("--serve", "granian", "--runtime", "asyncio", "--serve-option", "log-level=warning"),
        ("granian", *_GRANIAN, "--loop", "asyncio"),
        _OWN_SOCKETS,
    ),
    Pair(
        "granian --workers, uvloop",
        ("granian", "uvloop"),
        ("--serve", "granian", "--runtime", "uvloop", "--serve-option", "log-level=warning"),
        ("granian", *_GRANIAN, "--loop", "uvloop"),
        _OWN_SOCKETS,
    ),
)


def main() -> None:
    """Measure, and write what was measured if it was enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="pairs whose name has this")
    arguments = parser.parse_args()
    rounds, only = arguments.rounds, arguments.only
    if shutil.which("wrk") is None:
        print("serve: there is no wrk; Debian has it in the package wrk", file=sys.stderr)
        return
    pairs = [one for one in PAIRS if one.is_there and only in one.theirs]
    with ExitStack() as standing, tempfile.TemporaryDirectory() as state:
        cases = []
        for pair in pairs:
            for name, words in (
                (f"ours: {pair.theirs}", _our_words(pair)),
                (pair.theirs, pair.their_flags),
            ):
                port = standing.enter_context(_standing(words, state))
                cases.append(Case(name, lambda port=port: {"rps": _ask(port)}))  # type: ignore[misc]
        samples = interleave(cases, rounds)
    text = _describe(pairs, samples, rounds)
    print(text)
    if rounds >= 15 and not only:
        put_section("serve", text)


def _our_words(pair: Pair) -> tuple[str, ...]:
    start = ("forkfirst", "run", "asgi_app.py:app", "--name", "bench-{port}")
    return (*start, *pair.ours, "--workers", WORKERS, "--listen", pair.listen)


@contextmanager
def _standing(words: tuple[str, ...], state: str) -> Iterator[int]:
    """Have a server stand by, and give its port."""
    with socket.socket() as probe:  # theirs take no socket of ours
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module, *flags = (word.format(port=port) for word in words)
    server = subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        cwd=PEERS,
        env={**os.environ, "FORKFIRST_STATE_DIR": state},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_answering(server, port)
        yield port
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_answering(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if connection.recv(1):
                    return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _ask(port: int) -> float:
    """Return the requests a second that `wrk` got answered; all of them must be."""
    asked = subprocess.run(
        [
            *["wrk", "--threads", "1", "--connections", "64", "--duration"],
            f"{SECONDS}s",
            f"http://127.0.0.1:{port}/",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Socket errors" in asked or "Non-2xx" in asked:
        raise RuntimeError(asked)
    found = re.search(r"Requests/sec:\s+([\d.]+)", asked)
    if found is None:
        raise RuntimeError(asked)
    return float(found[1])


def _describe(pairs: list[Pair], samples: Samples, rounds: int) -> str:
    rows = []
    for pair in pairs:
        ours = f"ours: {pair.theirs}"
        ratio = samples.ratio(ours, pair.theirs, "rps")
        kept = "kept" if ratio.median >= BAR else "**not kept**"
        shown = (samples.figure(ours, "rps"), samples.figure(pair.theirs, "rps"))
        beside = f"`{pair.theirs}`" + (" ¹" if pair.listen == _OWN_SOCKETS else "")
        rows.append((beside, *(f"{one:.0f}" for one in shown), f"{ratio:.3f}", kept))
    heading = ("beside", "`forkfirst --serve`, requests/s", "theirs, requests/s", "÷", "bar ≥ 1.00")
    return (
        f"## Applications that others' servers serve, on {describe_machine()}\n\n"
        f"Medians of {rounds} interleaved rounds of {SECONDS} s, with the middle half in "
        f"parentheses;\n{WORKERS} workers, `wrk` with 64 kept connections beside them.\n"
        f"The load average at the end was {os.getloadavg()[0]:.1f}: above {os.cpu_count()} the "
        "processors had other work as well.\n\n"
        + write_table(heading, rows)
        + "\n¹ Each worker has a socket of its own, on both sides: ours with `PORT?reuseport=1`.\n"
    )


if __name__ == "__main__":
    main()
