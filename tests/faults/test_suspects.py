"""What may be ending its workers is set apart; the line goes on, no innocent one is given up."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.conftest import Farm
from tests.processes import Process, eventually


def _all_running(farm: Farm, ids: list[str]) -> None:
    def are() -> bool:
        held: Any = farm.store.client.mget([f"arq:in-progress:{id_}" for id_ in ids])
        return all(held)

    eventually(are, "all to run")


def _kill_twice(farm: Farm, ids: list[str], **settings: Any) -> None:
    """Two workers that run them die: the next try is their last."""
    for _ in range(2):
        worker = farm.worker(lease=0.5, **settings)
        _all_running(farm, ids)
        worker.kill()
        eventually(lambda: not farm.store.client.keys("arq:in-progress:*"), "the end of the leases")


def test_the_line_goes_on_beside_a_suspect(farm: Farm) -> None:
    suspect = farm.submit(3)
    _kill_twice(farm, suspect)
    workers = [farm.worker(lease=0.5) for _ in range(2)]
    long = farm.submit(6, 2)
    _all_running(farm, long)
    time.sleep(1)  # they have seen what waits
    began = time.monotonic()
    ids = farm.submit(0.1, 50)
    assert farm.outcomes(ids) == [200] * 50
    assert time.monotonic() - began < 4, "sooner than the long ones end"
    assert farm.outcomes(suspect) == [200], "when a worker is free of others"
    assert all(worker.is_running for worker in workers)


def test_innocents_of_killed_workers_run_side_by_side(farm: Farm) -> None:
    innocents = farm.submit(2, 10)
    _kill_twice(farm, innocents)
    farm.worker(lease=0.5)
    began = time.monotonic()
    assert farm.outcomes(innocents) == [200] * 10
    assert time.monotonic() - began < 2 * 5
    assert {farm.api.status(id_)["tries"] for id_ in innocents} == {3}


def test_one_among_ten_that_kills_is_found(farm: Farm) -> None:
    """In as many steps as ten can be halved; nobody else is given up."""
    poison = farm.api.submit("signal")
    innocents = [farm.api.submit(f"fine {number}") for number in range(9)]
    deaths, worker = 0, farm.worker("deadly:predict", lease=0.5)
    deadline = time.monotonic() + 40
    while farm.store.waiting_and_running() != (0, 0):
        assert time.monotonic() < deadline
        if not worker.is_running:
            deaths, worker = deaths + 1, farm.worker("deadly:predict", lease=0.5)
        time.sleep(0.02)
    assert farm.outcomes(innocents) == [200] * 9
    assert farm.outcomes([poison]) == [500]
    assert "given up" in farm.api.read(poison).json()["error"]
    assert deaths <= 2 + 4
    assert farm.store.leftovers() == set()


def test_what_stops_its_worker_in_order_ends(farm: Farm) -> None:
    """Each start is counted; neighbours that take longer than the drain come through."""
    stopper = farm.api.submit("stop")
    neighbour = farm.api.submit("fine")
    settings = {"lease": 0.5, "drain": 0, "max_tries": 1}
    workers: list[Process] = []
    deadline = time.monotonic() + 50
    while farm.api.read(stopper).status_code == 202:
        assert time.monotonic() < deadline, f"{len(workers)} workers"
        if not workers or not workers[-1].is_running:
            workers.append(farm.worker("deadly:predict", **settings))
        time.sleep(0.02)
    assert farm.api.read(stopper).status_code == 500
    assert "given up" in farm.api.read(stopper).json()["error"]
    assert len(workers) <= 16
    assert all(worker.status in {0, None} for worker in workers)
    if not workers[-1].is_running:
        farm.worker("deadly:predict", **settings)
    assert farm.outcomes([neighbour]) == [200]


def test_a_model_that_takes_the_interpreter_for_eight_leases_runs_once(farm: Farm) -> None:
    for _ in range(4):
        farm.worker("holds:holds_the_lock", lease=1, max_tries=3)
    ids = farm.submit(8, 3)
    assert farm.outcomes(ids) == [200] * 3
    assert farm.starts() == 3
    assert {farm.api.status(id_)["tries"] for id_ in ids} == {1}


def test_a_worker_whose_heartbeat_dies_gets_another(farm: Farm) -> None:
    worker = farm.worker(lease=0.6)
    ids = farm.submit(2.5)
    farm.until_running(1)

    def heartbeat() -> int:
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    first = eventually(heartbeat, "a heartbeat")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: heartbeat() not in {0, first}, "another")
    assert farm.outcomes(ids) == [200]
    assert farm.starts() == 1
    assert worker.is_running


def test_a_heartbeat_whose_keys_are_overwritten_goes_on(farm: Farm) -> None:
    """Of a worker that is full, and so does not mend them itself."""
    client: Any = farm.store.client
    worker = farm.worker(lease=1, concurrency=1)
    other = farm.worker(lease=1, concurrency=1)
    ids = farm.submit(2, 2)
    farm.until_running(2)
    for name in client.scan_iter("predictor:held:*"):
        client.set(b"predictor:cancel-requests:" + name.removeprefix(b"predictor:held:"), "junk")
    client.delete("predictor:metrics")
    client.set("predictor:metrics", "junk")
    assert farm.outcomes(ids) == [200, 200]
    assert farm.starts() == 2
    assert worker.is_running
    assert other.is_running
