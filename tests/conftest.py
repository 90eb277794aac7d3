"""Fixtures that several rooms need."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from support.service_home import Told, making_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.service_home import Home

# What a caller may have set for itself, and every process of a test would inherit: without kept
# bytecode each start compiles forkfirst anew; a job put in the background ignores Ctrl-C.
for _variable in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
    os.environ.pop(_variable, None)
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_coverage_in_children(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep coverage out of the children of a test marked `uncovered`.

    Such a test takes from a child what coverage needs as well, or counts or times what it does.
    """
    if request.node.get_closest_marker("uncovered") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def home() -> Iterator[Home]:
    """Give services a place of their own, and end every one that the test leaves behind."""
    with making_home() as made:
        yield made


@pytest.fixture
def told(home: Home) -> Iterator[Told]:
    """Hear what programs write to the fifo that $TELL names."""
    path = home.directory / "tell"
    home.environment["TELL"] = str(path)
    heard = Told(path)
    yield heard
    heard.close()
