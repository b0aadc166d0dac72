"""What can happen to the store. The numbers are the rows of the fault matrix."""

import contextlib
import json
import pickle
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.conftest import Farm
from tests.processes import eventually


def _accepts(farm: Farm) -> httpx.Response:
    headers = {"Async-Mode": "true"}
    return farm.api.client.post("/predict", json={"input": "0"}, headers=headers)


@pytest.mark.parametrize("running", [0, 5])
def test_row_5_restarted_with_an_idle_and_a_busy_worker(farm: Farm, running: int) -> None:
    """The worker lives, and what ran runs once."""
    worker = farm.worker(lease=10)
    ids = farm.submit(1, running)
    farm.until_running(running)
    farm.store.kill()
    time.sleep(1.5)  # the outage
    farm.store.start()
    assert farm.outcomes(ids) == [200] * running
    assert farm.starts() == running
    assert _accepts(farm).status_code == 202, "the first request after it is back"
    assert worker.is_running
    assert "Traceback" not in worker.output


def test_row_6_down_for_two_leases_with_ten_running(farm: Farm) -> None:
    """Ten results, ten starts: what is finished is written when the store is back."""
    workers = [farm.worker(), farm.worker()]
    ids = farm.submit(1, 10)
    farm.until_running(10)
    farm.store.kill()
    time.sleep(2)  # two leases
    farm.store.start()
    assert farm.outcomes(ids) == [200] * 10
    assert farm.starts() == 10
    assert all(worker.is_running for worker in workers)
    eventually(lambda: not farm.store.leftovers(), "nothing left for ever")


def test_row_7_frozen_for_longer_than_a_lease(farm: Farm) -> None:
    """An async request is told within two seconds, a sync one does not notice; nothing is lost."""
    workers = [farm.worker(), farm.worker()]
    ids = farm.submit(1, 10)
    farm.until_running(10)
    farm.store.freeze()
    for _ in range(2):
        began = time.monotonic()
        answer = _accepts(farm)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - began < 2
    assert farm.api.predict("x").status_code == 200
    assert farm.api.client.get("/health/live").status_code == 200
    ready = farm.api.client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["error"].startswith("The store cannot be used (")
    farm.store.resume()
    assert _accepts(farm).status_code == 202
    assert farm.outcomes(ids) == [200] * 10
    assert farm.starts() >= 10
    assert farm.starts() <= 12, (
        "a request that was under way when it froze may have been the store's"
    )
    assert all(worker.is_running for worker in workers)


def test_rows_9_10_connections_that_are_cut_at_any_moment(farm: Farm) -> None:
    """Accepted means once in the queue, however often a reply is lost."""
    worker = farm.worker(lease=10)
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(0.02):
            farm.store.client.client_kill_filter(_type="normal", skipme=True)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        answers = [_accepts(farm) for _ in range(200)]
    finally:
        stop.set()
        cutter.join()
    accepted = [a.json()["prediction_id"] for a in answers if a.status_code == 202]
    assert {answer.status_code for answer in answers} <= {202, 503}
    assert len(accepted) > 100
    assert farm.outcomes(accepted) == [200] * len(accepted)
    assert worker.is_running
    assert "Traceback" not in worker.output
    eventually(lambda: not farm.store.leftovers(), "nothing left for ever")


def test_row_11_not_there_yet_when_api_and_worker_start(farm: Farm) -> None:
    farm.store.kill()
    worker = farm.processes.start_worker(mock_delay=0)
    assert farm.api.client.get("/health/ready").status_code == 503
    assert farm.api.predict("x").status_code == 200
    where = f"store {farm.store.url.removeprefix('unix://')} unavailable"
    eventually(lambda: where in worker.output, "a line in the worker's log")
    assert where in farm.api.process.output
    farm.store.start()
    assert farm.outcomes([farm.api.submit("x")]) == [200]
    assert farm.api.client.get("/health/ready").status_code == 200
    assert worker.is_running


@pytest.mark.parametrize("store_settings", [{"maxmemory": "12mb"}])
def test_row_12_full_memory(farm: Farm) -> None:
    """503 and not a word of the input; the worker lives and drains, and then there is room."""
    text = "sesame " * 10_000
    accepted = []
    while (answer := _submit_text(farm, text)).status_code == 202:
        accepted.append(answer.json()["prediction_id"])
        assert len(accepted) < 1000
    assert answer.status_code == 503
    assert "OutOfMemoryError" in answer.text
    assert farm.api.client.get("/health/ready").status_code == 503
    assert "sesame" not in answer.text
    assert farm.api.client.post(f"/predict/{accepted.pop()}/cancel").status_code == 200
    assert farm.api.client.delete(f"/predict/{accepted[-1]}").status_code == 409
    assert farm.api.client.post("/predict", json={"input": "a"}).status_code == 200
    assert farm.api.client.get("/metrics").status_code == 200, "it only reads"
    assert "No worker is alive" in farm.api.client.get("/health/workers").text
    worker = farm.worker("echo:predict")
    eventually(lambda: farm.store.waiting_and_running() == (0, 0), "the drain")
    assert worker.is_running
    assert farm.outcomes(accepted) == [200] * len(accepted)
    assert "sesame" not in worker.output + farm.api.process.output


def test_events_wait_while_the_memory_is_full(farm: Farm) -> None:
    id_ = farm.api.submit("5 0")
    farm.store.client.config_set("maxmemory", 1)
    farm.worker("talks:predict")
    farm.until_running(1)
    time.sleep(1)  # long enough for all of it
    assert farm.api.client.get(f"/predict/{id_}").status_code == 202
    farm.store.client.config_set("maxmemory", 0)
    assert farm.outcomes([id_]) == [200]


def _submit_text(farm: Farm, text: str) -> httpx.Response:
    return farm.api.client.post("/predict", json={"input": text}, headers={"Async-Mode": "true"})


@pytest.mark.parametrize("store_settings", [{"maxmemory-policy": "allkeys-lru"}])
def test_row_13_a_store_that_would_evict(farm: Farm) -> None:
    worker = farm.processes.start_worker(mock_delay=0)
    assert worker.wait() == 78
    assert "maxmemory-policy is allkeys-lru; set it to noeviction" in worker.output
    assert "Traceback" not in worker.output
    ready = farm.api.client.get("/health/ready")
    assert ready.status_code == 503
    assert "maxmemory-policy" in ready.json()["error"]


def test_a_sync_prediction_on_a_worker_goes_on_after_a_restart(farm: Farm) -> None:
    api = farm.processes.api(model="tests.models.slow:predict", sync="queue")
    farm.worker()
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(api.predict("2")))
    thread.start()
    farm.until_running(1)
    farm.store.kill()
    time.sleep(1)  # so that the api looks for it meanwhile
    farm.store.start()
    thread.join()
    assert [answer.status_code for answer in answers] == [200]


def test_a_store_that_becomes_read_only_for_a_while(farm: Farm) -> None:
    """As a primary does that was demoted, or whose disk is full."""
    worker = farm.worker()
    ids = farm.submit(0.5, 3)
    farm.until_running(3)
    farm.store.client.replicaof("127.0.0.1", "1")
    assert _accepts(farm).status_code == 503
    assert farm.api.client.get("/health/ready").status_code == 503
    time.sleep(1)  # the predictions end meanwhile
    farm.store.client.replicaof("NO", "ONE")
    assert farm.outcomes(ids) == [200] * 3
    assert farm.starts() == 3
    assert worker.is_running


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_the_store_can_be_stopped(farm: Farm, signum: int) -> None:
    """Before it was ever there, and after it went away."""
    farm.store.kill()
    starting = farm.processes.start_worker(mock_delay=0)
    eventually(lambda: "unavailable" in starting.output, "the start")
    time.sleep(0.3)  # so that it waits
    starting.signal(signum)
    assert starting.wait(5) == 0
    farm.store.start()
    worker = farm.worker(drain=0.5)
    farm.submit(5)
    farm.until_running(1)
    farm.store.kill()
    worker.signal(signum)
    assert worker.wait(0.5 + 4) == 0


HOSTILE_JOBS = [b"", b"\xff", pickle.dumps(1), b"{}", b"[" * 10_000, b'{"t":1e999}', b"null"]


def test_row_21_hostile_values_in_arq_s_keys(farm: Farm, tmp_path: Path) -> None:
    """A failed prediction and a line in the log; no code is run, no worker dies."""

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    client = farm.store.client
    for number, job in enumerate([*HOSTILE_JOBS, pickle.dumps(Evil())]):
        client.set(f"arq:job:job{number}", job)
        client.zadd("arq:queue", {f"job{number}": 1})
        client.set(f"arq:result:result{number}", job)
    client.lpush("arq:job:list", 1)
    client.lpush("arq:retry:list", 1)
    odd: dict[Any, float] = {"list": 1, b"\xff\x00": 1, "x" * 1000: 1}
    client.zadd("arq:queue", odd | {"never": float("inf"), "early": float("-inf")})
    client.set("arq:in-progress:early", "junk")
    client.lpush("arq:result:list2", 1)
    worker = farm.worker("echo:predict")
    ids = [f"job{number}" for number in range(len(HOSTILE_JOBS) + 1)] + ["list", "early"]
    assert set(farm.outcomes(ids)) <= {500, 504}
    for id_ in [f"result{number}" for number in range(len(HOSTILE_JOBS) + 1)] + ["list2"]:
        answer = farm.api.read(id_)
        assert answer.status_code == 500
        assert answer.json()["error"] == "What is stored for this prediction cannot be read."
    assert farm.outcomes([farm.api.submit("fine")]) == [200]
    assert worker.is_running
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "key", ["arq:queue", *(f"predictor:{name}" for name in ("leases", "claimed", "metrics"))]
)
def test_row_21_shared_keys_of_a_wrong_type(farm: Farm, key: str) -> None:
    worker = farm.worker("echo:predict")
    for other in (key, "predictor:wake", "predictor:times"):
        farm.store.client.delete(other)
        farm.store.client.set(other, "junk")
    eventually(lambda: _accepts(farm).status_code == 202, "acceptance")
    assert farm.outcomes([farm.api.submit("fine")]) == [200]
    assert worker.is_running
    assert "Traceback" not in worker.output


def test_row_23_more_than_the_queue_may_hold(farm: Farm) -> None:
    """503 with a reckoned Retry-After; every 202 is kept."""
    port_api = farm.processes.api(queue_limit=20)
    farm._api = port_api
    answers = [_accepts(farm) for _ in range(50)]
    assert [answer.status_code for answer in answers] == [202] * 20 + [503] * 30
    assert answers[-1].json()["error"].startswith("The queue is full: 20 predictions wait")
    assert int(answers[-1].headers["retry-after"]) == 10, "nothing ended yet: a guess"
    worker = farm.worker(concurrency=1)
    ids = [answer.json()["prediction_id"] for answer in answers[:20]]
    assert farm.outcomes(ids) == [200] * 20
    assert worker.stop() == 0
    for _ in range(20):
        assert _accepts(farm).status_code == 202
    refused = _accepts(farm)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) == 1, "twenty ended within a moment"


def test_a_reply_that_is_lost_does_not_spend_a_try(farm: Farm, tmp_path: Path) -> None:
    """The store claims for the worker, and the answer gets lost: asked again, it is the same."""
    proxy = LossyProxy(farm.store.url.removeprefix("unix://"), tmp_path / "p")
    with proxy:
        farm.processes.worker(
            model="tests.models.slow:predict", lease=10, redis_url=f"unix://{tmp_path}/p"
        )
        proxy.lose_claims = 3
        ids = farm.submit(0.3, 5)
        began = time.monotonic()
        assert farm.outcomes(ids) == [200] * 5
        assert time.monotonic() - began < 5, "not only when the leases ran out"
        assert proxy.lost > 0
        for id_ in ids:
            result: Any = farm.store.client.get(f"arq:result:{id_}")
            assert json.loads(result)["t"] == 1
    assert farm.starts() == 5


class LossyProxy:
    """Between a worker and the store: cuts the connection instead of passing some replies on."""

    def __init__(self, target: str, path: Path) -> None:
        self._target = target
        self._path = path
        self._server = socket.socket(socket.AF_UNIX)
        self.lose_claims = 0
        self.lost = 0

    def __enter__(self) -> "LossyProxy":
        self._server.bind(str(self._path))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(self._target)
            threading.Thread(target=self._serve, args=(client, upstream), daemon=True).start()

    def _serve(self, client: socket.socket, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError), client, upstream:
            while request := client.recv(1 << 20):
                upstream.sendall(request)
                reply = upstream.recv(1 << 20)
                # A claim that gave something: its reply holds a job.
                if self.lose_claims and b'"f":"predict"' in reply:
                    self.lose_claims -= 1
                    self.lost += 1
                    return
                client.sendall(reply)
