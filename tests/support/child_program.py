"""Runs a program text in a fresh interpreter, with one thread, for what changes its process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

NOBODY = 65534
# What a login shell of root may have, and what five peers left to their daemons.
ROOT_GROUPS = (0, 4, 27, 42)


def run_child(program: str, *arguments: str, groups: tuple[int, ...] | None = None) -> Any:
    """Return what *program* printed as JSON; it must end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        extra_groups=groups,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stderr}"
    return json.loads(done.stdout)
