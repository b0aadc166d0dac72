"""What a prediction costs, counted instead of timed: each limit is close above what it is today."""

import asyncio
import itertools
import json
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.bench import load
from tests.processes import UNMEASURED, Api, Forked, Processes, eventually

_TIMES = 20  # of which the cheapest counts: now and then, something else is done meanwhile


_KEY = "alice-aaaaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture(scope="module")
def counting(own_valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes that count their function calls; a line in the log would cost 80."""
    settings: dict[str, Any] = {"model": "tests.models.calls:predict", "log_level": "warning"}
    folder = tmp_path_factory.mktemp("costs")
    with Processes(folder, own_valkey, Forked, settings | UNMEASURED) as started:
        started.worker()
        yield started


@pytest.fixture(scope="module")
def served(counting: Processes) -> Api:
    api = counting.api()
    assert api.read(api.submit("x"), wait=10).status_code == 200
    return api


async def _calls(api: Api, *more: str, between: bytes = b"") -> int:
    """Function calls of a sync prediction in the api, and of a request between it and the last."""
    counts, loop = list[int](), asyncio.get_running_loop()
    transport, connection = await loop.create_connection(load.Connection, "127.0.0.1", api.port)
    for _ in range(_TIMES):
        await connection.ask(load.post("x", *more))
        if between:
            await connection.ask(between)
        _, body = await connection.ask(load.post("x", *more))  # in one piece, unlike httpx
        counts.append(json.loads(body)["result"])
    transport.close()
    return min(counts)


async def _calls_of_both(api: Api, *more: str) -> tuple[int, int]:
    """Of a sync prediction, and of a submit."""
    sync, submit = await _calls(api, *more), load.post("x", "Async-Mode: true", *more)
    return sync, await _calls(api, *more, between=submit) - sync


async def test_function_calls_in_the_api(served: Api) -> None:
    id_ = served.submit("x")
    eventually(lambda: served.read(id_).status_code == 200, "it has ended")
    sync, submit = await _calls_of_both(served)
    read = await _calls(served, between=load.get(id_)) - sync
    found = {"sync": sync, "submit": submit, "read": read}
    limits = {"sync": 398, "submit": 741, "read": 553}
    assert all(found[name] <= limits[name] for name in limits), found


async def test_keys_and_quotas_cost_little(counting: Processes, served: Api) -> None:
    quotas = {"rate": 10**6, "burst": 10**6, "open": 1000}
    api = counting.api(api_keys=f"alice:{_KEY}", **quotas)
    with_them = await _calls_of_both(api, f"Authorization: Bearer {_KEY}")
    without = await _calls_of_both(served)
    added = [one / other - 1 for one, other in zip(with_them, without, strict=True)]
    assert max(added) <= 0.04, (with_them, without)


def test_function_calls_in_the_worker(served: Api) -> None:
    answers = [served.post("x", Prefer="wait=10").json() for _ in range(_TIMES)]
    assert min(answer["result"] for answer in answers) <= 1250


def test_commands_of_the_store(served: Api, own_valkey: str) -> None:
    def calls() -> Counter[str]:
        stats: Any = store.info("commandstats")
        return Counter({name: each["calls"] for name, each in stats.items()})

    with redis.Redis.from_url(own_valkey) as store:
        seen = [calls()]
        for _ in range(_TIMES):
            served.post("x", Prefer="wait=10")
            seen.append(calls())
    costs = [after - before for before, after in itertools.pairwise(seen)]
    found = {name: statistics.median(cost[name] for cost in costs) for name in seen[-1]}
    assert found["cmdstat_evalsha"] <= 3, "submit, claim, finish"
    assert found["cmdstat_blpop"] <= 1
    assert sum(found.values()) <= 53, found


def test_bytes_in_the_store(own_valkey: str, tmp_path: Path) -> None:
    """Of a prediction of 100 bytes that waits, and of one that has ended."""
    count = 200
    with (
        redis.Redis.from_url(f"{own_valkey}?db=1") as store,
        Processes(tmp_path, f"{own_valkey}?db=1", Forked, UNMEASURED) as processes,
    ):

        def used() -> float:
            # By default, MEMORY USAGE estimates the queue from five of its members.
            keys = store.scan_iter()
            return sum(store.memory_usage(key, samples=0) or 0 for key in keys) / count

        api = processes.api(model="tests.models.echo:predict")
        for _ in range(count):
            api.submit("x" * 100)
        assert used() <= 500, "waiting"
        processes.worker(model="tests.models.echo:predict")
        eventually(lambda: not store.zcard("arq:queue"), "all have ended")
        assert used() <= 500, "ended"
