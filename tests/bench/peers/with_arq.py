"""arq, as it comes (`arq tests.bench.peers.with_arq.Settings`), and tuned (`.Tuned`)."""

import asyncio
import logging
from typing import Any, ClassVar

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job

from tests.bench.peers import work
from tests.bench.peers.front import front
from tests.bench.peers.work import SLOTS, STORE

_settings = RedisSettings(unix_socket_path=STORE.removeprefix("unix://"))


class _Pool:
    redis: ArqRedis

    async def __aenter__(self) -> None:
        self.redis = await create_pool(_settings)

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()


_pool = _Pool()


async def predict(_: dict[str, Any], text: str) -> str:
    return await work.predict(text)


async def _submit(text: str) -> str:
    job = await _pool.redis.enqueue_job("predict", text)
    return job.job_id if job else ""


async def _result(id_: str) -> Any:
    found = await Job(id_, _pool.redis).result_info()
    return found.result if found else None


app = front(_submit, _result, lambda: _pool)


class Settings:
    functions: ClassVar = [predict]
    redis_settings = _settings


def __getattr__(name: str) -> Any:
    """`Tuned`: with uvloop, no logs, as many slots as the others, and a short pause."""
    if name != "Tuned":
        raise AttributeError(name)
    logging.disable()
    asyncio.set_event_loop(uvloop.new_event_loop())
    return {
        "functions": [predict],
        "redis_settings": _settings,
        "poll_delay": 0.01,
        "max_jobs": SLOTS,
    }
