"""Models that fork: their children are nobody's workers, and no servers."""

import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Farm
from tests.models.forks import WAYS
from tests.processes import Processes, eventually


@pytest.mark.parametrize("name", ["predict", "predict_in_thread"])
def test_a_model_that_forks_runs_once_beside_its_neighbours(farm: Farm, name: str) -> None:
    worker = farm.worker(f"forks:{name}", drain=0.5)
    neighbour = farm.api.submit(f"2 {farm.starts_file}")
    eventually(farm.starts, "the neighbour to run")
    ways = [way for way in WAYS for _ in range(3)]
    ids = [farm.api.submit(f"{way} {farm.starts_file}") for way in ways]
    answers = [farm.api.outcome(id_).json() for id_ in ids]
    assert [answer["output"]["result"] for answer in answers] == [WAYS[way][1] for way in ways]
    assert farm.outcomes([neighbour]) == [200]
    assert farm.starts() == len(ways) + 1, "none ran twice"
    assert worker.is_running
    assert worker.stop(5) == 0, "its own signals still reach it"
    assert farm.store.leftovers() == set()


@pytest.mark.parametrize("name", ["predict", "predict_in_thread"])
def test_an_api_whose_model_forks_serves_on(
    processes: Processes, tmp_path: Path, name: str
) -> None:
    api = processes.api(model=f"tests.models.forks:{name}")
    for way, (_, result) in WAYS.items():
        answer = api.predict(f"{way} {tmp_path / 'starts'}")
        assert answer.json() == {"input": f"{way} {tmp_path / 'starts'}", "result": result}
    assert api.client.get("/health/live").status_code == 200
    api.process.signal(signal.SIGTERM)
    assert api.process.wait(5) == -signal.SIGTERM
