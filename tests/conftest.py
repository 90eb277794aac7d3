"""Fixtures that several rooms need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.service_home import Told, making_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.service_home import Home


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
