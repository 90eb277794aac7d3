"""The soak of tests/system/test_soak.py where services really run: as a unit of systemd."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.real_systemd import EXAMPLES_INSIDE, PYTHON_INSIDE, SOURCE_INSIDE, TESTS_INSIDE
from support.soaking.soak import SECONDS_ELSEWHERE, choose_seed

if TYPE_CHECKING:
    from support.real_systemd import RealSystemd


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(SECONDS_ELSEWHERE + 300)
def test_a_unit_loses_nothing_and_leaves_nothing(
    real_systemd: RealSystemd, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reloaded and restarted by systemctl, killed whole and in parts, its listener kept."""
    seed, directory = choose_seed(), "/var/lib/soaked"
    real_systemd.path(directory).mkdir(mode=0o755)
    words = ("-m", "support.soaking", "unit", directory, str(SECONDS_ELSEWHERE), seed)
    path = f"PYTHONPATH={SOURCE_INSIDE}:{TESTS_INSIDE}"
    command = ("env", path, f"EXAMPLES={EXAMPLES_INSIDE}", PYTHON_INSIDE, *words)
    done = subprocess.run(
        real_systemd.enter(*command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    with capsys.disabled():
        sys.stdout.write(f"\nsoak under systemd {real_systemd.version}, seed {seed}\n{done.stdout}")
    journal = real_systemd.read_journal("app.service")
    assert done.returncode == 0, (done.stdout, "\n".join(journal[-60:]))
