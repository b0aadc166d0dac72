"""SAQ: `saq tests.bench.peers.with_saq.settings` is the worker."""

from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from saq import Status
from saq.queue.redis import RedisQueue
from saq.types import Context

from tests.bench.peers import work
from tests.bench.peers.front import front
from tests.bench.peers.work import SLOTS, STORE

queue = RedisQueue(Redis.from_url(STORE))


async def predict(_: Context, *, text: str) -> str:
    return await work.predict(text)


async def _submit(text: str) -> str:
    job = await queue.enqueue("predict", text=text, ttl=3600)
    return job.key if job else ""


async def _result(id_: str) -> Any:
    job = await queue.job(id_)
    return job.result if job and job.status is Status.COMPLETE else None


@asynccontextmanager
async def _opened() -> Any:
    await queue.connect()
    yield
    await queue.disconnect()


app = front(_submit, _result, _opened)
settings = {"queue": queue, "functions": [predict], "concurrency": SLOTS}
