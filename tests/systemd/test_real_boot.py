"""The support that boots a systemd: it must leave nothing, whatever ends it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from support import real_systemd as support

pytestmark = pytest.mark.real

PROGRAM = """
import sys
from pathlib import Path
from support.real_systemd import boot
with boot(Path("/"), "killed") as systemd:
    print(systemd.leader, flush=True)
    sys.stdin.read()
"""


def test_a_test_run_that_is_killed_leaves_no_systemd(tmp_path: Path) -> None:
    """Its PID 1 is nobody's child that would die with us; a guard waits for our end."""
    try:
        support.probe()
    except support.UnavailableError as error:
        pytest.skip(str(error))
    mounts = Path("/proc/self/mounts").read_text()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(support.__file__).parents[1]),
            "TMPDIR": str(tmp_path),
        },
    ) as run:
        assert run.stdout is not None
        leader = int(run.stdout.readline())
        pidfd = os.pidfd_open(leader)
        try:
            run.kill()
            waiting = select.poll()
            waiting.register(pidfd, select.POLLIN)
            assert waiting.poll(30_000)
        finally:
            os.close(pidfd)
    assert Path("/proc/self/mounts").read_text() == mounts
    with support.boot(Path("/"), "after") as systemd:  # which removes the empty groups left over
        assert systemd.run("systemctl", "is-system-running").strip() == "running"
    assert not list(support.find_groups().glob(f"*{run.pid}-killed"))
    assert list(tmp_path.iterdir()) == []
