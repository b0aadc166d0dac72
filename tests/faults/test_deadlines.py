"""A prediction ends at its time, whatever became of its worker."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.conftest import Farm
from tests.processes import UNMEASURED, Process, eventually
from tests.webhooks.test_deliverer import SETTINGS, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


def _lease(worker: Process | None, fate: str) -> None:
    assert worker
    if fate == "stopped":
        assert worker.stop() == 0
    elif fate == "killed":
        worker.kill()
    else:  # frozen, with its heartbeat
        os.killpg(worker.pid, signal.SIGSTOP)


@pytest.mark.parametrize("fate", ["absent", "stopped", "killed", "frozen"])
def test_cancel_after_holds_without_a_worker(farm: Farm, receiver: Receiver, fate: str) -> None:
    """504 at its time, for ever, and the webhook is told, though its lease is far longer."""
    farm._api = farm.processes.api(**(SETTINGS | {"lease": 10}))
    farm.processes.start("python", "-m", "predictor.webhooks", **SETTINGS, **UNMEASURED)
    worker = None if fate == "absent" else farm.worker(lease=10, drain=0)
    submitted = time.monotonic()
    id_ = farm.api.submit("30", Cancel_After="1.5s", Webhook_Url=receiver.url)
    if worker:
        farm.until_running(1)
        _lease(worker, fate)
    answer = farm.api.read(id_, wait=10)
    assert answer.status_code == 504
    assert 1.5 < time.monotonic() - submitted < 2.5
    eventually(lambda: receiver.told, "the webhook", 3)
    (told,) = receiver.verified()
    assert (told["type"], told["data"]["prediction_id"]) == ("prediction.timed_out", id_)
    assert told["data"]["error"] == answer.json()["error"] == farm.api.read(id_).json()["error"]
    assert farm.api.status(id_)["tries"] == (1 if fate in {"killed", "frozen"} else 0)
    if fate == "frozen" and worker:
        os.killpg(worker.pid, signal.SIGCONT)
    assert farm.outcomes([id_]) == [504]


def test_time_in_the_queue_holds_after_a_claim(farm: Farm) -> None:
    """A worker that handed it back, or died, gives it no new time to wait."""
    farm._api = farm.processes.api(queue_ttl=1.5)
    worker = farm.worker(drain=0)
    ids = farm.submit(30, 2)
    eventually(lambda: farm.starts() == 2, "two starts")
    assert worker.stop() == 0
    submitted = time.monotonic()
    assert farm.outcomes(ids) == [504, 504]
    assert time.monotonic() - submitted < 1.5
    farm.worker(lease=0.5)
    eventually(lambda: farm.store.waiting_and_running() == (0, 0), "an empty queue")
    assert farm.outcomes(ids) == [504, 504]
    assert farm.starts() == 2


def test_a_run_may_outlast_the_time_in_the_queue(farm: Farm) -> None:
    farm._api = farm.processes.api(queue_ttl=0.5)
    farm.worker()
    (id_,) = farm.submit(1.2)
    assert farm.outcomes([id_]) == [200]


def test_an_idempotency_key_lives_as_long_as_its_prediction(farm: Farm) -> None:
    farm._api = farm.processes.api(result_ttl=1)
    farm.worker("echo:predict", result_ttl=1)
    client: Any = farm.store.client
    ids = [farm.api.submit("x", Idempotency_Key=f"key {number}") for number in range(3)]
    names = client.keys("predictor:idempotency:*")
    assert farm.outcomes(ids) == [200] * 3
    assert len(names) == 3
    assert all(0 < client.pttl(name) <= 1000 for name in names)
    assert farm.api.submit("x", Idempotency_Key="key 1") == ids[1]
    assert farm.api.client.delete(f"/predict/{ids[2]}").status_code == 204
    assert farm.api.submit("x", Idempotency_Key="key 2") != ids[2]
    eventually(lambda: farm.api.read(ids[1]).status_code == 404, "it is forgotten")
    assert farm.api.submit("x", Idempotency_Key="key 1") != ids[1]
