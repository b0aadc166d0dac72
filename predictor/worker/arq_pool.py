"""The client that arq's worker gets as `redis_pool`: it replies from the claims.

arq 0.28 sends six commands about every job. A claim has the replies, and the job finishes its claim
itself, so none of them goes to the store. Commands that are not about one job pass through.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError

from predictor.errors import StoreUnavailable
from predictor.prediction import PredictionId
from predictor.store import keys
from predictor.store.claims import Claim, Claims
from predictor.store.retry import describe
from predictor.store.wire import FUNCTION

logger = logging.getLogger(__name__)

#: What arq takes for the job: a call without arguments, which looks its claim up.
_CALL: Final[dict[str, Any]] = {"t": None, "f": FUNCTION, "a": (), "k": {}, "et": 0}


class ClaimingRedis(ArqRedis):
    """arq's client, on claims."""

    def __init__(self, pool: ConnectionPool, claims: Claims) -> None:
        super().__init__(pool, job_deserializer=lambda _: _CALL, default_queue_name=keys.QUEUE)
        self.claims = claims
        #: claimed, and not yet started by arq: each must be started once
        self._offered: dict[PredictionId, Claim] = {}

    async def zrangebyscore(self, *_: Any, **__: Any) -> list[bytes]:
        """arq's poll for due jobs: what it did not start last time, else new claims."""
        if not self._offered:
            self._offered = {claim.id: claim for claim in await self.claims.claim()}
        return [id_.encode() for id_ in self._offered]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        """Each of arq's transactions is about one job; its other pipeline is `log_redis_info`."""
        return _JobPipeline(self._offered) if transaction else _InfoPipeline(self)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """A single command of arq, sent again until the store replies.

        None if the store refuses it (a health check while its memory is full), and at shutdown.
        """
        send = functools.partial(super().execute_command, *args, **options)

        async def call() -> Any:
            try:
                return await send()
            except ResponseError as error:
                logger.warning("the store refuses %s: %s", args[0], describe(error))
                return None

        with contextlib.suppress(StoreUnavailable):
            return await self.claims.retry.until_answered(call)


class _InfoPipeline(contextlib.AsyncExitStack):
    """The pipeline of arq's `log_redis_info`; its commands are sent one by one, with retries."""

    def __init__(self, redis: ClaimingRedis) -> None:
        super().__init__()
        self._redis = redis
        self._commands: list[Callable[[], Awaitable[Any]]] = []

    def info(self, section: str) -> None:
        self._commands.append(lambda: self._redis.info(section))

    def dbsize(self) -> None:
        self._commands.append(self._redis.dbsize)

    async def execute(self) -> list[Any]:
        replies = [await command() for command in self._commands]
        return [{} if reply is None else reply for reply in replies]


class _JobPipeline(contextlib.AsyncExitStack):
    """A transaction of arq's worker about one job, with just the commands that arq 0.28 uses.

    Another version's command is an AttributeError, at once.
    """

    def __init__(self, offered: dict[PredictionId, Claim]) -> None:
        super().__init__()
        self._offered = offered
        self._claim: Claim | None = None

    # Worker.start_jobs: WATCH, EXISTS, ZSCORE of the queue, MULTI, PSETEX of in-progress.

    async def watch(self, key: str) -> bool:
        self._claim = self._offered.get(PredictionId(key.removeprefix(keys.IN_PROGRESS)))
        return True

    async def exists(self, _key: str) -> bool:
        return self._claim is None

    async def zscore(self, _queue: str, _id: str) -> float | None:
        # arq does not start what is 0 or in the future, and dies of what no int can hold.
        return max(1.0, min(self._claim.queued_at, time.time() * 1000 - 1)) if self._claim else None

    def psetex(self, _key: str, _ms: int, _value: bytes) -> None:
        if self._claim:
            del self._offered[self._claim.id]

    # Worker.run_job: GET job, INCR tries, EXPIRE tries. Worker.finish_job: ZREM, DEL.

    multi = get = incr = expire = zrem = delete = lambda *_: None

    async def execute(self) -> list[Any]:
        return [b"-", 1, True]  # a job, its first try, and what EXPIRE says
