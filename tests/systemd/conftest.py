"""A real systemd for a whole test run: this machine's version, and a newer one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import real_systemd as support
from support import real_units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session", params=["installed", support.NEWER_RELEASE])
def real_systemd(request: pytest.FixtureRequest) -> Iterator[support.RealSystemd]:
    """A running systemd; the test is skipped, with the reason, where none can be booted."""
    try:
        support.probe()
        lower = Path("/") if request.param == "installed" else support.build_newer_tree()
        with support.boot(lower, request.param) as running:
            yield running
    except support.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def unit(real_systemd: support.RealSystemd) -> Iterator[Callable[..., str]]:
    """Install a service that runs `forkfirst`, and sockets for it; all is stopped at the end."""
    with real_units.installing(real_systemd) as install:
        yield install
