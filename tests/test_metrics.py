"""Metrics: the same from every process, and what clients count themselves."""

import asyncio
import json
import math
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from predictor.store.metrics import BUCKETS, bucket
from tests.bench import load
from tests.processes import Api, Processes, eventually

#: Names that promtool's linter accepts for a base unit, or that have none.
_UNITS = re.compile(r"_(seconds|bytes|total|depth|running|workers|slots|info)$")


def samples(api: Api) -> dict[tuple[str, ...], float]:
    """Value by name, and by the values of its labels in their order."""
    text = api.client.get("/metrics").text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def ended(api: Api, mode: str) -> dict[str, int]:
    return {
        name[2]: int(value)
        for name, value in samples(api).items()
        if name[:2] == ("predictor_predictions_total", mode)
    }


def test_what_promtool_would_check(served: Api) -> None:
    response = served.client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    assert len({family.name for family in families}) == len(families) == 12
    for family in families:
        assert family.documentation.endswith(".")
        assert re.fullmatch(r"[a-z_]+", family.name)
        assert not re.search(r"_(sum|count|bucket|ms|milliseconds)$", family.name)
        names = {sample.name for sample in family.samples}
        assert names, family.name
        if family.type == "counter":
            assert names == {f"{family.name}_total"}
        elif family.type == "gauge":
            assert _UNITS.search(family.name)
        else:
            assert family.type == "histogram"
            assert family.name.endswith("_seconds")
        series = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(series) == len(set(series))
    lines = response.text.splitlines()
    for family in families:
        assert sum(line.startswith(f"# HELP {family.name}") for line in lines) == 1


@pytest.mark.parametrize("mode", ["api", "queue"])
def test_each_mode_is_counted_where_it_ends(processes: Processes, mode: str) -> None:
    model = {"model": "tests.models.raises:predict", "sync": mode}
    api, other = processes.api(**model), processes.api(**model)
    processes.worker(**model)
    told = dict[str, float]()  # the sums of what the responses say, in seconds
    for text in ("fine", "exception", "refused"):
        for each, answer in ("sync", api.predict(text)), ("async", api.outcome(api.submit(text))):
            assert answer.status_code in {200, 422, 500}
            for name, ms in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]):
                told[f"{name} {each}"] = told.get(f"{name} {each}", 0) + float(ms) / 1000
    expected = {"succeeded": 1, "failed": 1, "invalid_input": 1}
    for each in ("sync", "async"):
        what = partial(lambda mode: +Counter(ended(other, mode)) == expected, each)
        eventually(what, f"counts of {each}")
    seen = samples(other)
    assert seen["predictor_queue_wait_seconds_count",] == (6 if mode == "queue" else 3)
    assert seen["predictor_run_seconds_count", "sync"] == 3
    for each in ("sync", "async"):
        sum_ = seen["predictor_run_seconds_sum", each]
        assert sum_ == pytest.approx(told[f"run {each}"], abs=0.001)
    waited = told["queue async"] + (told["queue sync"] if mode == "queue" else 0)
    assert seen["predictor_queue_wait_seconds_sum",] == pytest.approx(waited, abs=0.001)
    assert seen["predictor_workers", "tests.models.raises:predict", ""] == 1
    assert seen["predictor_slots", "tests.models.raises:predict", ""] == 10


def test_refusals_are_counted(processes: Processes) -> None:
    api = processes.api(queue_limit=1, concurrency=1, mock_delay=2, model_version="2")
    api.submit("queued")
    assert api.post("refused", Async_Mode="true").status_code == 503
    refused = samples(api)
    assert refused["predictor_rejected_total", "queue_full"] == 1
    assert refused["predictor_queue_depth",] == 1
    assert refused["predictor_workers", "predictor.mock:predict", "2"] == 0

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}") as client:
            posts = [client.post("/predict", json={"input": "x"}, timeout=30) for _ in range(3)]
            return [response.status_code for response in await asyncio.gather(*posts)]

    assert sorted(asyncio.run(crowd())) == [200, 503, 503]
    eventually(lambda: samples(api)["predictor_rejected_total", "slots_taken"] == 2, "2 refused")


def test_a_submit_without_a_worker_says_so(processes: Processes) -> None:
    api = processes.api(mock_delay=0, lease=1)
    assert api.client.get("/health/workers").status_code == 503
    response = api.post("x", Async_Mode="true")
    assert response.status_code == 202
    assert response.headers["predictor-workers"] == "0"
    assert "no worker is alive" in api.process.output
    worker = processes.worker(mock_delay=0, lease=1, concurrency=3)

    def alive() -> Any:
        return api.client.get("/health/workers").json()

    known = {"status": "ready", "workers": 1, "slots": 3}
    assert alive() == known, "from the moment on in which it is ready"
    assert "predictor-workers" not in api.post("x", Async_Mode="true").headers
    worker.signal(signal.SIGKILL)  # it is known for another lease
    eventually(lambda: "error" in alive(), "the worker is forgotten", 5)
    worker = processes.worker(mock_delay=0, lease=10)
    assert alive()["workers"] == 1
    worker.stop()  # it is forgotten at once
    assert "error" in alive()


def test_a_prediction_that_runs_has_a_worker(processes: Processes) -> None:
    """It was submitted before there was one; its 202 comes when it runs."""
    settings = {"mock_delay": 60, "drain": 0.1}
    api = processes.api(**settings)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.post, "x", Prefer="wait=60")
        eventually(lambda: samples(api)["predictor_queue_depth",] == 1, "it is queued")
        processes.worker(**settings)
        eventually(lambda: samples(api)["predictor_running",] == 1, "it runs")
        api.process.signal(signal.SIGTERM)  # which ends the wait
        late = waiting.result()
    assert late.status_code == 202
    assert "no worker is alive" in api.process.output
    assert "predictor-workers" not in late.headers


def test_what_is_overwritten_fails_nothing_and_is_removed(
    processes: Processes, store: "redis.Redis"
) -> None:
    """Keys with another type than the metrics have."""
    settings = {"mock_delay": 0, "lease": 0.6}
    api = processes.api(**settings)
    names = ("predictor:metrics", "predictor:workers")
    for name in names:
        store.set(name, "x")
    assert api.client.get("/metrics").status_code == 200, "before anybody removes them"
    processes.worker(**settings)
    for name in names:
        store.set(name, "x")
        assert api.outcome(api.submit("x")).status_code == 200
        assert api.client.get("/metrics").status_code == 200
        eventually(lambda: store.type(name) != b"string", f"{name} is removed")  # noqa: B023
    before = ended(api, "async")["succeeded"]
    assert api.outcome(api.submit("x")).status_code == 200
    assert ended(api, "async")["succeeded"] == before + 1
    eventually(lambda: api.client.get("/health/workers").status_code == 200, "it is seen again")


def test_the_age_of_the_oldest(processes: Processes, store: "redis.Redis") -> None:
    api = processes.api(mock_delay=0)

    def oldest() -> float:
        return samples(api)["predictor_queue_oldest_seconds",]

    assert oldest() == 0
    now = time.time() * 1000
    store.zadd("arq:queue", {"younger": now - 5000, "older": now - 20_000, "leased": now + 9000})
    assert oldest() == pytest.approx(20, abs=3)
    store.zadd("arq:queue", {"younger": math.inf, "older": math.inf})  # suspects
    store.zadd("predictor:suspects", {"older": now})
    store.hset("predictor:claimed", "older", f"{now - 20_000} worker:1:1")
    assert oldest() == pytest.approx(20, abs=3)
    store.flushdb()


def test_buckets() -> None:
    assert [bucket(seconds) for seconds in (0, 0.005, 0.0051, 1, 1e9)] == [
        *("0.005", "0.005", "0.01", "1.0", "+Inf"),
    ]
    assert sorted(BUCKETS) == list(BUCKETS)


#: What a client asks of tests.models.counted, and what comes of it.
_KINDS = {
    "fine": "succeeded",
    "raise": "failed",
    "refuse": "invalid_input",
    "sleep": "timed_out",
    "cancel": "canceled",
    "late": "expired",
}


class _Client:
    """One of many clients: it repeats each request until it is answered, whoever dies."""

    def __init__(self, ports: list[int], seen: Counter[str]) -> None:
        self._ports, self._seen = ports, seen
        self._connection: load.Connection | None = None

    async def run(self, work: Iterator[tuple[int, str]]) -> None:
        for number, kind in work:
            self._seen[await self._outcome(number, kind)] += 1
        if self._connection:
            self._connection.transport.close()

    async def _outcome(self, number: int, kind: str) -> str:
        headers = ["Async-Mode: true", f"Idempotency-Key: {number}"]
        headers += ["Cancel-After: 1ms"] if kind == "late" else []
        _, accepted = await self._ask(load.post(f"{kind} {number}", *headers))
        id_ = json.loads(accepted)["prediction_id"]
        if kind == "cancel":
            cancel = f"POST /predict/{id_}/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            await self._ask(cancel.encode())
        status, body = 202, b""
        while status == 202:
            status, body = await self._ask(load.get(id_, "Prefer: wait=5"))
        if status == 504:
            _, known = await self._ask(load.get(f"{id_}/status"))
            return "timed_out" if json.loads(known)["tries"] else "expired"
        if status == 500:
            return "given_up" if b"given up" in body else "failed"
        return {200: "succeeded", 410: "canceled", 422: "invalid_input"}[status]

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        while True:
            try:
                if not self._connection:
                    loop, port = asyncio.get_running_loop(), random.choice(self._ports)
                    new = loop.create_connection(load.Connection, "127.0.0.1", port)
                    _, self._connection = await new
                status, body = await self._connection.ask(request)
                if status != 503:
                    return status, body
            except OSError:
                self._connection = None
            await asyncio.sleep(0.02)


def test_two_thousand_are_counted_as_their_client_counts(
    processes: Processes, store: "redis.Redis"
) -> None:
    """On two api and two worker processes, three of which are killed with -9 on the way.

    What the first worker holds is run again; what the second holds is given up. Sync ones go to the
    api that lives: another loses the counts of its last second.
    """
    settings: dict[str, Any] = {
        "model": "tests.models.counted:predict",
        "timeout": 0.5,
        "lease": 0.6,
    }
    settings |= {"concurrency": 50, "log_level": "error", "queue_limit": 0, "max_tries": 3}
    apis = [processes.api(**settings), processes.api(**settings)]
    workers = [processes.worker(**settings), processes.worker(**settings)]
    weights = (80, 5, 5, 2, 4, 4)
    kinds = random.Random(1).choices(list(_KINDS), weights, k=2000)

    seen, sync, ports = Counter[str](), Counter[int](), [api.port for api in apis]

    async def predict(port: int) -> None:
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(load.Connection, "127.0.0.1", port)
        for kind in ("fine", "raise", "refuse") * 50:
            status, _ = await connection.ask(load.post(f"{kind} sync"))
            sync[status] += 1
        transport.close()

    async def run() -> None:
        work = iter(list(enumerate(kinds)))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(_Client(ports, seen).run(work))
            tasks.create_task(predict(ports[1]))
            victims = [workers[0], apis[0].process, workers[1]]
            for share, victim in zip((300, 700, 1200), victims, strict=True):
                held = f"predictor:held:*:{victim.pid}:*"
                while seen.total() < share or (
                    victim in workers and not any(store.scan_iter(held))
                ):
                    await asyncio.sleep(0.005)
                os.kill(victim.pid, signal.SIGKILL)
                if victim in workers:
                    processes.start_worker(**settings | {"max_tries": 1})
                else:
                    ports.pop(0)

    asyncio.run(run())
    assert seen.total() == 2000
    assert +Counter(ended(apis[1], "async")) == seen
    assert set(_KINDS.values()) - {"expired"} <= set(seen)
    assert sync == {200: 50, 500: 50, 422: 50}
    assert +Counter(ended(apis[1], "sync")) == dict.fromkeys(
        ("succeeded", "failed", "invalid_input"), 50
    )
    told = samples(apis[1])
    ran = sum(seen[name] for name in ("succeeded", "failed", "invalid_input"))
    assert ran <= told["predictor_run_seconds_count", "async"] <= 2000
    assert told["predictor_recovered_total",] > 0
    assert told["predictor_queue_depth",] == told["predictor_running",] == 0
