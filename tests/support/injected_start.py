"""Starts a service of which one system call of one process fails once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from support.service_home import PATIENCE, PROGRAMS, Done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.service_home import Home, Told

_CALL = re.compile(r"(\w+)\((.*)")
_IMPORTS = re.compile(r"\.pyc?\b|\.so\b|__pycache__|/lib/python")
# What the kernel says of each call in need, of EMFILE, ENOSPC, EAGAIN and EACCES.
_ERRORS = {
    "openat": ("EMFILE", "EACCES"),
    "mkdir": ("ENOSPC", "EACCES"),
    "socket": ("EMFILE", "EACCES"),
    "socketpair": ("EMFILE",),
    "pipe2": ("EMFILE",),
    "dup": ("EMFILE",),
    "dup2": ("EMFILE",),
    "dup3": ("EMFILE",),
    "fcntl": ("EMFILE", "EAGAIN"),
    "epoll_create1": ("EMFILE",),
    "epoll_ctl": ("ENOSPC",),
    "pidfd_open": ("EMFILE",),
    "bind": ("EACCES",),
    "listen": ("EACCES",),
    "setsockopt": ("EACCES",),
    "write": ("ENOSPC", "EAGAIN"),
    "pwrite64": ("ENOSPC",),
    "ftruncate": ("ENOSPC",),
    "fchmod": ("EACCES",),
    "linkat": ("ENOSPC", "EACCES"),
    "rename": ("ENOSPC", "EACCES"),
    "unlink": ("EACCES",),
    "chdir": ("EACCES",),
    "clone": ("EAGAIN",),
    "clone3": ("EAGAIN",),
    "fork": ("EAGAIN",),
    "vfork": ("EAGAIN",),
    "setsid": ("EACCES",),
    "flock": ("EAGAIN", "EACCES"),
    "sendmsg": ("EAGAIN", "EMFILE"),
    "recvmsg": ("EAGAIN", "EMFILE"),
    "close_range": ("EACCES",),
    "kill": ("EACCES",),
    "getcwd": ("EACCES",),
}


class Site(NamedTuple):
    """A system call of a start, by its name and how many of that name came before it."""

    name: str
    number: int
    error: str
    text: str

    def __str__(self) -> str:
        """Say it in a failure's message."""
        return f"{self.name} number {self.number} with {self.error}: {self.text}"


def list_sites(home: Home, told: Told, role: str, *words: object) -> list[Site]:
    """Trace a good start, and return each call of *role* before READY, with what it may fail with.

    Traced once before that: the first start of a new interpreter also writes compiled modules.
    """
    trace = home.directory / "trace"
    for _ in range(2):
        with (
            _held_start(home, told, role, *words) as (process, pid),
            _tracing(home, pid, "-s", "200", "-o", str(trace)),
        ):
            assert process.wait(PATIENCE) == 0
            home.stop("app")
        _remove_files(home)
    counts: dict[str, int] = {}
    sites: list[Site] = []
    for line in trace.read_text().splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        name, rest = found.groups()
        counts[name] = counts.get(name, 0) + 1
        if name == "write" and "\\5readys" in rest:
            break  # the report that it is ready
        chosen = _ERRORS.get(name, ())
        if _IMPORTS.search(rest):
            chosen = ("EMFILE",) if name == "openat" else ()
        if name == "openat" and "O_CREAT" in rest:
            chosen = (*chosen, "ENOSPC")
        if name == "fcntl" and "F_DUPFD" not in rest:
            chosen = ("EAGAIN",) if "F_OFD" in rest else ()
        sites += [Site(name, counts[name], error, line) for error in chosen]
    return sites


def start_with_failure(home: Home, told: Told, role: str, site: Site, *words: object) -> Done:
    """Start, and let the call at *site* fail once."""
    _remove_files(home)
    inject = f"inject={site.name}:error={site.error}:when={site.number}"
    options = ("-e", f"trace={site.name}", "-e", inject, "-o", "/dev/null")
    with _held_start(home, told, role, *words) as (process, pid), _tracing(home, pid, *options):
        out, err = process.communicate(timeout=PATIENCE)
        if process.returncode == 0:
            home.forkfirst("stop", "app", "--grace-period", "5")
    return Done(process.returncode, out.decode(), err.decode())


def _remove_files(home: Home) -> None:
    """A first start has more to do than a second one."""
    for name in home.list_files():
        (home.state / name).unlink()


@contextmanager
def _held_start(
    home: Home, told: Told, role: str, *words: object
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    program = PROGRAMS / "held_start.py"
    process = home.open(
        *(sys.executable, program, role, "start", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process, int(told.wait())
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _tracing(home: Home, pid: int, *options: str) -> Iterator[None]:
    """Attach to the stopped process *pid*, and let it go on."""
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
    tracer = home.open("strace", "-p", pid, *options, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        assert b"attached" in said, said
        os.kill(pid, signal.SIGCONT)
        yield
        tracer.wait(PATIENCE)  # it ends with what it traces
    finally:
        tracer.kill()
        tracer.communicate()
