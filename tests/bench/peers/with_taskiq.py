"""taskiq on Redis' streams: `taskiq worker tests.bench.peers.with_taskiq:broker` is the worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker
from taskiq_redis.exceptions import ResultIsMissingError

from tests.bench.peers import work
from tests.bench.peers.front import front
from tests.bench.peers.work import STORE

results: RedisAsyncResultBackend[str] = RedisAsyncResultBackend(STORE, result_ex_time=3600)
broker = RedisStreamBroker(STORE).with_result_backend(results)


@broker.task
async def predict(text: str) -> str:
    return await work.predict(text)


async def _submit(text: str) -> str:
    return (await predict.kiq(text)).task_id


async def _result(id_: str) -> Any:
    try:
        return (await results.get_result(id_)).return_value
    except ResultIsMissingError:
        return None


@asynccontextmanager
async def _opened() -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


app = front(_submit, _result, _opened)
