"""Results that are large for the link to the store, or for the store itself."""

import time
from pathlib import Path

import pytest

from tests.faults.conftest import Farm
from tests.faults.surroundings import Link

MB = 1_000_000


def test_a_large_result_comes_over_a_slow_link(farm: Farm, tmp_path: Path) -> None:
    """Written, read, told and waited for, though each takes longer than a small answer may."""
    with Link(farm.store.url, tmp_path / "link", 1.5 * MB) as link:
        farm._api = farm.processes.api(redis_url=link.url)
        farm.worker("results:predict", redis_url=link.url)
        id_ = farm.api.submit("large")
        waited = farm.api.read(id_, wait=20)
        assert waited.status_code == 200
        assert len(waited.content) > 3 * MB
        assert farm.api.read(id_).content == waited.content
        began = time.monotonic()
        assert farm.api.status(id_)["status"] == "succeeded"
        assert farm.api.client.post(f"/predict/{id_}/cancel").status_code == 409
        assert time.monotonic() - began < 0.5, "neither carries the result"


@pytest.mark.parametrize("store_settings", [{"proto-max-bulk-len": "1mb"}])
def test_a_result_that_the_store_refuses_fails_its_prediction(farm: Farm) -> None:
    worker = farm.worker("results:predict", concurrency=1)
    id_, next_ = farm.api.submit("large"), farm.api.submit("text")
    answer = farm.api.outcome(id_)
    assert answer.status_code == 500
    assert "proto-max-bulk-len" in answer.json()["error"]
    assert farm.outcomes([next_]) == [200], "the slot is free"
    assert farm.api.status(id_)["tries"] == 1
    assert worker.is_running
