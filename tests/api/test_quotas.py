"""Quotas: how much a name may request, over all processes and both modes."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis

from predictor.prediction import owner_of
from tests.api.test_keys import ALICE, BOB, KEYS, bearer
from tests.processes import Api, Processes, eventually

ASYNC = {"Async-Mode": "true"}


def _post(api: Api, text: str = "0", key: str | None = None, **more: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    headers |= bearer(key) if key else {}
    return api.client.post("/predict", json={"input": text}, headers=headers)


def _submit(api: Api, text: str = "0", key: str | None = None, **more: str) -> httpx.Response:
    return _post(api, text, key, **{"Async_Mode": "true"} | more)


def _open(store: "redis.Redis") -> dict[str, int]:
    found: Any = store.hgetall("predictor:open")
    return {name.decode(): int(count) for name, count in found.items()}


@pytest.mark.parametrize("keys", ["", KEYS])
def test_the_rate_of_two_processes_and_both_modes_together(processes: Processes, keys: str) -> None:
    rate, burst, seconds = 40, 20, 2.0
    settings: dict[str, Any] = {"api_keys": keys, "rate": rate, "burst": burst}
    settings |= {"model": "tests.models.slow:predict", "concurrency": 50}
    apis = [processes.api("--no-access-log", **settings) for _ in range(2)]
    key = ALICE if keys else None
    began = time.monotonic()

    def ask(number: int) -> list[int]:
        found, ask = [], (_post, _submit)[number // 2 % 2]
        while time.monotonic() - began < seconds:
            found.append(ask(apis[number % 2], "0", key).status_code)
        return found

    with ThreadPoolExecutor(8) as pool:
        found = Counter(status for each in pool.map(ask, range(8)) for status in each)
    took = time.monotonic() - began
    accepted = found[200] + found[202]
    assert found.total() == accepted + found[429]
    assert found[429]
    assert min(found[200], found[202]) > 0, found
    assert 0.6 * (burst + rate * seconds) <= accepted <= burst + rate * took, found
    if keys:
        assert _post(apis[0], "0", BOB).status_code == 200, "another name has its own"


@pytest.mark.parametrize("ask", [_post, _submit])
def test_a_refusal_says_when_there_is_more(processes: Processes, ask: Any) -> None:
    api = processes.api(rate=0.5, burst=2, mock_delay=0)
    assert [ask(api).status_code for _ in range(2)] == [200 if ask is _post else 202] * 2
    refused = ask(api)
    assert refused.status_code == 429
    assert "PREDICTOR_RATE" in refused.json()["error"]
    assert refused.headers["retry-after"] == "2"
    assert refused.headers["ratelimit-policy"] == '"rate";q=2;w=4'
    assert refused.headers["ratelimit"] == '"rate";r=0;t=2'
    stream = ask(api, Accept="text/event-stream")
    assert (stream.status_code, stream.headers["ratelimit"][:8]) == (429, '"rate";r')
    time.sleep(float(refused.headers["retry-after"]))
    assert ask(api).is_success


def test_replays_take_no_tokens(processes: Processes) -> None:
    api = processes.api(rate=0.01, burst=2)
    answers = [_submit(api, Idempotency_Key="k").status_code for _ in range(9)]
    assert answers == [202] * 9
    assert _submit(api, "1", Idempotency_Key="k").status_code == 422
    assert [_submit(api).status_code for _ in range(2)] == [202, 429]
    assert _submit(api, Idempotency_Key="k").status_code == 202


def test_sync_predictions_in_the_queue_count_too(processes: Processes) -> None:
    settings: dict[str, Any] = {"model": "tests.models.slow:predict"}
    api = processes.api(rate=0.01, burst=2, sync="queue", **settings)
    processes.worker(**settings)
    assert [_post(api).status_code for _ in range(3)] == [200, 200, 429]


def test_open_predictions_of_a_name(processes: Processes, store: "redis.Redis") -> None:
    settings: dict[str, Any] = {"api_keys": KEYS, "open": 3, "model": "tests.models.slow:predict"}
    api = processes.api(**settings)
    ids = [_submit(api, "0", ALICE).json()["prediction_id"] for _ in range(3)]
    refused = _submit(api, "0", ALICE)
    assert refused.status_code == 429
    assert refused.headers["ratelimit-policy"] == '"open";q=3;qu="concurrent-requests"'
    assert refused.headers["ratelimit"] == '"open";r=0;t=1'
    assert _submit(api, "0", BOB).status_code == 202
    assert _open(store) == {owner_of("alice")[:-1]: 3, owner_of("bob")[:-1]: 1}
    assert api.client.post(f"/predict/{ids[0]}/cancel", headers=bearer(ALICE)).status_code == 200
    assert _submit(api, "0", ALICE).status_code == 202
    processes.worker(**settings)
    eventually(lambda: not _open(store), "all have ended")
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda _: _post(api, "0.5", ALICE).status_code, range(5)))
        assert sorted(found) == [200, 200, 200, 429, 429], "sync ones, of this process"


def test_running_sync_predictions_are_open_for_submits(processes: Processes) -> None:
    api = processes.api(open=2, model="tests.models.slow:predict")
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda _: _post(api, "1").status_code, range(2))
        eventually(lambda: _submit(api).status_code == 429, "both run")
        assert list(both) == [200, 200]
    assert [_submit(api).status_code for _ in range(3)][-1] == 429


def test_open_counts_return_to_zero_however_predictions_end(
    processes: Processes, store: Any
) -> None:
    settings: dict[str, Any] = {"api_keys": KEYS, "lease": 0.5, "max_tries": 1}
    settings |= {"model": "tests.models.slow:predict"}
    api = processes.api(**settings)

    def submit(text: str, **more: str) -> str:
        return str(_submit(api, text, ALICE, **more).json()["prediction_id"])

    killed = [submit("30") for _ in range(2)]  # and given up
    worker = processes.worker(**settings)
    eventually(lambda: store.hlen("predictor:claimed") == len(killed), "they run")
    worker.kill()
    expired = submit("0", Cancel_After="20ms")
    gone = submit("0", Cancel_After="20ms")
    time.sleep(0.03)
    assert api.client.get(f"/predict/{expired}", headers=bearer(ALICE)).status_code == 504
    assert api.client.delete(f"/predict/{gone}", headers=bearer(ALICE)).status_code == 204
    ids = [
        *(submit("0.5"), submit("no number"), submit("30", Cancel_After="1500ms"), expired),
        *(submit("0", Idempotency_Key="k") for _ in range(2)),
    ]
    drained = processes.worker(drain=0, **settings)
    eventually(lambda: store.zcard("predictor:leases"), "it works")
    drained.stop()
    processes.worker(**settings)
    running = submit("30")
    eventually(lambda: store.exists(f"arq:in-progress:{running}"), "it runs")
    assert api.client.post(f"/predict/{running}/cancel", headers=bearer(ALICE)).status_code == 202
    eventually(lambda: not store.zcard("arq:queue"), f"all have ended: {ids}, {killed}", 30)
    assert not store.exists("predictor:open")
    headers = bearer(ALICE)
    found = {api.client.get(f"/predict/{id_}", headers=headers).status_code for id_ in ids + killed}
    assert found == {200, 500, 504}


def test_without_the_store_sync_predictions_go_on(processes: Processes) -> None:
    api = processes.api(rate=0.01, burst=1, open=5, mock_delay=0, redis_url="redis://127.0.0.1:1")
    assert [_post(api).status_code for _ in range(5)] == [200] * 5


def test_a_lost_queue_takes_its_counts_with_it(processes: Processes, store: "redis.Redis") -> None:
    api = processes.api(api_keys=KEYS, open=2, model="tests.models.slow:predict")
    answers = [_submit(api, "0", ALICE, Cancel_After="2s") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    store.set("arq:queue", "overwritten")
    processes.worker(api_keys=KEYS, model="tests.models.slow:predict")
    eventually(lambda: not store.exists("predictor:open"), "the counts are dropped")
    assert _submit(api, "0", ALICE).status_code == 202
    eventually(lambda: not store.zcard("arq:queue"), "it has ended")
    eventually(lambda: not store.zcard("predictor:deadlines"), "theirs are over, and forgotten")
    store.flushdb()


@pytest.mark.parametrize("limit", [{"open": 2}, {"queue_limit": 2}, {"open": 2, "api_keys": KEYS}])
def test_what_has_expired_fills_no_limit(
    processes: Processes, store: "redis.Redis", limit: dict[str, Any]
) -> None:
    """Though there is no worker that would end it; nothing of it is kept for ever."""
    key = ALICE if "api_keys" in limit else None
    api = processes.api(queue_ttl=2, result_ttl=1, **limit)
    for more in ({"Cancel_After": "1s", "Idempotency_Key": "key"}, {}):
        assert _submit(api, key=key, **more).status_code == 202
    assert _submit(api, key=key).status_code in {429, 503}
    eventually(lambda: _submit(api, key=key).status_code == 202, "the first is over")
    eventually(lambda: _submit(api, key=key).status_code == 202, "the second is over")
    eventually(lambda: store.zcard("arq:queue") == 0, "all are over")
    eventually(lambda: api.process.output.count(" async expired (") == 4, "a line for each")
    assert store.zcard("predictor:deadlines") == store.hlen("predictor:open") == 0
    eventually(lambda: not list(store.scan_iter("arq:*")), "and their results")
    left = {name for name in store.scan_iter() if store.ttl(name) == -1}
    assert left == {b"predictor:metrics"}
