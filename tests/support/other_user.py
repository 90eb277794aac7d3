"""Services that become another user: an interpreter which that user can read, and a home."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forkfirst
from forkfirst import errors
from forkfirst.unix import access

if TYPE_CHECKING:
    from support.service_home import Done, Home

NOBODY = 65534
SOMEBODY = 65533
"""A user that owns nothing and is in no list of users."""

SOURCE = Path(forkfirst.__file__).parent.parent

FACTS = """
import json, os
def read_facts():
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip("\\n").split(":\\t", 1) for line in file if ":\\t" in line)
    names = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
    facts = {name: lines[name].split() for name in names}
    facts["shadow"] = os.access("/etc/shadow", os.R_OK)
    facts["environment"] = {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")}
    try:
        os.setuid(0)
        facts["regained"] = True
    except PermissionError:
        facts["regained"] = False
    return facts
AT_IMPORT = read_facts()
"""
SERVICE = (
    FACTS
    + """
import asyncio, socket
async def answer(reader, writer):
    await reader.read()
    writer.write(json.dumps({**read_facts(), "at_import": AT_IMPORT}).encode())
    await writer.drain()
    writer.close()
async def main(context):
    for sockets in context.listeners.values():
        for one in sockets:
            await asyncio.start_server(answer, sock=one)
    context.ready()
    await context.wait_stopping()
"""
)


def find_python() -> str:
    """Return an interpreter that nobody can run: ours, or the system's."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            access.check_readable(NOBODY, NOBODY, (NOBODY,), [candidate, _library(candidate)])
        except errors.PermissionRefusedError:
            continue
        return candidate
    reason = "no interpreter here can be read by another user"
    raise FileNotFoundError(reason)


def _library(python: str) -> str:
    return sys.base_prefix if python == sys.executable else str(Path(python).resolve())


PYTHON = find_python()


def open_home(home: Home) -> None:
    """Let other users pass through *home*, as they may pass through /run and /var/log."""
    home.directory.chmod(0o711)
    home.environment["PYTHONPATH"] = str(SOURCE)
    home.environment["PYTHONDONTWRITEBYTECODE"] = "1"


def forkfirst_as(home: Home, *words: object, uid: int = 0, groups: str = "") -> Done:
    """Run `forkfirst` with *words* as *uid*, in exactly *groups*, to its end."""
    prefix: tuple[str, ...] = ()
    if uid or groups:
        chosen = f"--groups={groups}" if groups else "--clear-groups"
        prefix = (shutil.which("setpriv") or "setpriv", f"--reuid={uid}", f"--regid={uid}", chosen)
    return home.run(*prefix, PYTHON, "-m", "forkfirst", *words)


def own_address(port: int) -> str:
    """Return an address of this machine that only this process uses, at a privileged *port*.

    All of 127.0.0.0/8 is this machine's.
    """
    pid = os.getpid()
    return f"127.{100 + (pid >> 16) % 100}.{pid >> 8 & 255}.{pid & 255}:{port}"


def read_answer(octets: bytes) -> dict[str, Any]:
    """Return what the service of this module told of itself."""
    facts: dict[str, Any] = json.loads(octets)
    return facts
