"""The client that arq's worker gets as `redis_pool`: a poll for due jobs returns claims.

A claimed job is free and due, and finishes its claim itself, so the commands that arq 0.28 sends
about each job are not sent to the store. Others are.
"""

import logging
from contextlib import AbstractAsyncContextManager
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import ResponseError

from predictor.store import keys
from predictor.store.claims import Claims
from predictor.store.retry import describe
from predictor.store.wire import FUNCTION

logger = logging.getLogger(__name__)

#: arq's job: a call without arguments, which looks up its claim.
_CALL: dict[str, Any] = {"t": None, "f": FUNCTION, "a": (), "k": {}, "et": 0}


class ClaimingRedis(ArqRedis):
    def __init__(self, claims: Claims) -> None:
        pool = claims.retry.redis.connection_pool
        super().__init__(pool, job_deserializer=lambda _: _CALL, default_queue_name=keys.QUEUE)
        self.claims = claims

    async def zrangebyscore(self, *_: Any, **__: Any) -> list[bytes]:
        """arq's poll for due jobs: new claims. It starts all of them before anything else runs."""
        return [claim.id.encode() for claim in await self.claims.claim()]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        return _Pipeline()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """A single command of arq, sent again until the store replies.

        None if the store refuses it (a health check while its memory is full), and at shutdown.
        """
        return await self.claims.retry.until_end(lambda: self._send(*args, **options))

    async def _send(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            logger.warning("the store refuses %s: %s", args[0], describe(error))


class _Pipeline(AbstractAsyncContextManager["_Pipeline"]):
    """Just the commands that arq 0.28 uses; another version's is an AttributeError, at once."""

    _replies: tuple[Any, ...] = (b"-", 1, True)  # run_job's: a job, its first try, of EXPIRE

    async def __aexit__(self, *_: object) -> None:
        pass

    async def execute(self) -> tuple[Any, ...]:
        return self._replies

    def dbsize(self) -> None:
        self._replies = ({}, {}, {}, 0)  # log_redis_info's, whose line is not logged

    # Worker.start_jobs: WATCH, EXISTS in-progress, ZSCORE of the queue, MULTI, PSETEX in-progress.
    async def watch(self, _key: str) -> None:
        """Nothing is in progress: it was claimed."""

    exists = watch

    async def zscore(self, _queue: str, _id: str) -> float:
        return 1.0  # due

    # Worker.run_job: GET job, INCR tries, EXPIRE tries. Worker.finish_job: ZREM, DEL.
    multi = psetex = get = incr = expire = zrem = delete = info = lambda *_, **__: None
