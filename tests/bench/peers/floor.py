"""The floor of async predictions: a list, and no promise at all. Nothing can be much faster.

`uvicorn tests.bench.peers.floor:app`, and `python -m tests.bench.peers.floor` is the worker.
"""

import asyncio
import uuid
from typing import Any

import uvloop
from redis.asyncio import Redis

from tests.bench.peers.front import front
from tests.bench.peers.work import SLOTS, STORE, predict

redis: Any = Redis.from_url(STORE)


async def _submit(text: str) -> str:
    id_ = uuid.uuid4().hex
    await redis.lpush("queue", f"{id_} {text}")
    return id_


async def _result(id_: str) -> str | None:
    value = await redis.get(id_)
    return value.decode() if value is not None else None


app = front(_submit, _result, lambda: redis)


async def _work() -> None:
    slots, tasks = asyncio.Semaphore(SLOTS), set[asyncio.Task[None]]()

    async def run(id_: str, text: str) -> None:
        try:
            await redis.set(id_, await predict(text), ex=3600)
        finally:
            slots.release()

    while True:
        await slots.acquire()
        _, job = await redis.brpop(["queue"])
        task = asyncio.create_task(run(*job.decode().split(" ", 1)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    uvloop.run(_work())
