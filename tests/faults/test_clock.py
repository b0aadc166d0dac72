"""The store's clock is set while predictions run and wait: they do not notice."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Farm
from tests.faults.surroundings import Clock, Unavailable
from tests.processes import eventually

HOUR = 3600


@pytest.fixture
def store_clock(tmp_path: Path) -> Clock:
    try:
        return Clock(tmp_path)
    except Unavailable as why:
        pytest.skip(str(why))


def _time(farm: Farm) -> int:
    now: Any = farm.store.client.time()
    return int(now[0])


def _step(farm: Farm, clock: Clock, seconds: int) -> None:
    """The server asks for the time once a millisecond at most: wait until it has."""
    before = _time(farm)
    clock.step(seconds)
    eventually(lambda: abs(_time(farm) - before - seconds) < HOUR / 60, "the step")


def test_a_clock_that_is_set_back_by_an_hour(farm: Farm, store_clock: Clock) -> None:
    """What runs and what waits goes on, and what comes next is run at once."""
    workers = [farm.worker(lease=3.5, concurrency=1) for _ in range(2)]
    ids = farm.submit(1, 2)
    farm.until_running(2)
    ids += farm.submit(0.1, 2)
    _step(farm, store_clock, -HOUR)
    began = time.monotonic()
    assert farm.outcomes(ids) == [200] * 4
    assert farm.outcomes(farm.submit(0)) == [200]
    assert time.monotonic() - began < 4  # far from an hour
    assert farm.starts() == 5, "none ran twice"
    assert all(worker.stop() == 0 for worker in workers)


def test_a_clock_that_is_set_forward_by_an_hour(farm: Farm, store_clock: Clock) -> None:
    """As on a machine that was asleep: what ran has not run for that long, and is left alone."""
    workers = [farm.worker(lease=0.6) for _ in range(2)]
    ids = farm.submit(2, 2)
    farm.until_running(2)
    _step(farm, store_clock, HOUR)
    began = time.monotonic()
    assert farm.outcomes(farm.submit(0)) == [200]
    assert time.monotonic() - began < 1
    assert farm.outcomes(ids) == [200] * 2
    assert farm.starts() == 3, "none ran twice"
    assert {farm.api.status(id_)["tries"] for id_ in ids} == {1}
    assert all(worker.stop() == 0 for worker in workers)
