"""What all tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_coverage_in_children(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep coverage out of the children of a test marked `uncovered`.

    Such a test takes from a child what coverage needs as well: its descriptors, its disk, its user.
    """
    if request.node.get_closest_marker("uncovered") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        yield
