"""What a worker counts, and how often it says so."""

from __future__ import annotations

import pytest

from forkfirst.stages.supervise.served import Served


@pytest.mark.parametrize(("most", "reports"), [(1, 250), (100, 250), (1_000, 25), (100_000, 0)])
def test_a_worker_tells_each_hundredth_of_what_it_may_serve(most: int, reports: int) -> None:
    """A message for each request would cost more than the request; none would be too late."""
    told: list[int] = []
    served = Served(most, told.append)
    for _ in range(250):
        served.add(1)
    assert len(told) == reports
    assert told == sorted(set(told))
