"""How the figures change with the queue, the processes, the inputs and the connections."""

import asyncio
import time
from dataclasses import replace
from statistics import median
from typing import Any

import uvloop

from predictor.config import Config
from predictor.prediction import Job, Json, new_id
from predictor.store import wire
from predictor.store.claims import Claims
from predictor.store.connection import connect
from predictor.store.retry import StoreRetry
from predictor.store.scripts import script
from tests.bench import load
from tests.bench.systems import PREDICTOR, System, running
from tests.bench.work import measured

_SAMPLES = 300


def measure(seconds: float, most_queued: int) -> None:
    print("\n| queued | submit p50 ms | read p50 ms | claim p50 ms |\n|---|---|---|---|")
    count = 100
    while count <= most_queued:
        print(_queue(count), flush=True)
        count *= 10
    print("\n| workers | async per s, 50 ms model | CPU ms |\n|---|---|---|")
    for workers in (1, 2, 4):
        with running(replace(PREDICTOR, workers=workers), seconds=0.05) as it:
            found = measured(it, load.waiting, 64 * workers, seconds)
        print(f"| {workers} | {found['rate']:,.0f} | {found['cpu']:.2f} |", flush=True)
    print("\n| api processes | sync per s | CPU ms |\n|---|---|---|")
    for processes in (1, 2, 4):
        system = _with(PREDICTOR_API_PROCESSES=str(processes), PREDICTOR_LOG_LEVEL="warning")
        system = replace(system, front=("predictor", "--port", "{port}"), worker=())
        with running(system) as it:
            found = measured(it, load.synchronous, 64, seconds)
        print(f"| {processes} | {found['rate']:,.0f} | {found['cpu']:.3f} |", flush=True)
    print("\n| input | sync p50 ms | async, waiting: p50 ms |\n|---|---|---|")
    with running(PREDICTOR) as it:
        for size in (10, 1000, 100_000, 1_000_000):
            text = "x" * size
            sync = measured(it, load.synchronous, 1, seconds / 2, text)["p50"]
            queued = measured(it, load.waiting, 1, seconds / 2, text)["p50"]
            print(f"| {size:,} B | {sync:.2f} | {queued:.2f} |", flush=True)
    print("\n| connections | sync per s | p99 ms |\n|---|---|---|")
    with running(_with(PREDICTOR_CONCURRENCY="1000"), with_worker=False) as it:
        for clients in (1, 10, 100, 1000):
            found = measured(it, load.synchronous, clients, seconds)
            print(f"| {clients:,} | {found['rate']:,.0f} | {found['p99']:.1f} |", flush=True)


def _with(**environment: str) -> System:
    return replace(PREDICTOR, environment=PREDICTOR.environment | environment)


def _queue(count: int) -> str:
    """A row: one submit, read and claim beside so many that wait."""
    with running(PREDICTOR, with_worker=False) as it:
        _fill(it.redis, count)
        submits, reads = asyncio.run(_ask(it.port))
        claims = uvloop.run(_claim(it.store))
    cells = (1000 * median(each) for each in (submits, reads, claims))
    return f"| {count:,} | {' | '.join(f'{cell:.3f}' for cell in cells)} |"


async def _ask(port: int) -> tuple[list[float], list[float]]:
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(load.Connection, "127.0.0.1", port)
    submits, reads = list[float](), list[float]()
    for _ in range(_SAMPLES):
        began = time.perf_counter()
        _, body = await connection.ask(load.post("x" * 100, "Async-Mode: true"))
        accepted = time.perf_counter()
        await connection.ask(load.get(body.decode().rpartition('":"')[2].rstrip('"}')))
        submits.append(accepted - began)
        reads.append(time.perf_counter() - accepted)
    transport.close()
    return submits, reads


async def _claim(store: str) -> list[float]:
    """Of one prediction each, as a worker does it."""
    retry = StoreRetry(connect(store, silence=5, socket_connect_timeout=1))
    claims = Claims(Config(redis_url=store), retry, "bench", slots=lambda: len(claims.held) + 1)
    seconds = list[float]()
    for _ in range(_SAMPLES):
        began = time.perf_counter()
        assert len(await claims._claim_due()) == 1
        seconds.append(time.perf_counter() - began)
    await retry.redis.aclose(close_connection_pool=True)
    return seconds


def _fill(redis: Any, count: int) -> None:
    config = Config()
    job = wire.encode_job(Job(Json(b'"%b"' % (b"x" * 100))), round(time.time() * 1000))
    life = round(1000 * config.queue_ttl)
    submit = redis.script_load(script("submit"))
    for start in range(0, count, 1000):
        with redis.pipeline(transaction=False) as pipe:
            for _ in range(min(1000, count - start)):
                pipe.evalsha(submit, 0, new_id(), job, "", life, 0, "", "", "", "")
            pipe.execute()
