"""The client that arq's worker is given as `redis_pool`: it answers from the claims.

arq 0.28 asks six times about every job before and after it runs. A claim knows the answers, and the
job ends its claim itself, so nothing of this goes to the store. Commands of arq that are not about
one job pass through.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError

from predictor.errors import StoreUnavailable
from predictor.prediction import PredictionId
from predictor.store import keys
from predictor.store.claims import Claim, Claims
from predictor.store.patience import TROUBLE, Patience, describe
from predictor.store.wire import FUNCTION

logger = logging.getLogger(__name__)

#: What arq takes for the job: a call without arguments, which looks at its claim.
_CALL: Final[dict[str, Any]] = {"t": None, "f": FUNCTION, "a": (), "k": {}, "et": 0}


class ClaimingRedis(ArqRedis):
    """arq's client, on claims. What arq asks of the store itself is asked until it is answered."""

    def __init__(self, pool: ConnectionPool, patience: Patience, claims: Claims) -> None:
        super().__init__(
            connection_pool=pool,
            job_deserializer=lambda _: _CALL,
            default_queue_name=keys.QUEUE,
        )
        self.claims = claims
        self._patience = patience
        #: Claimed, and not yet taken up by arq: an id must be handed out once, and is not lost if
        #: arq does not start it.
        self._offered: dict[PredictionId, Claim] = {}

    async def zrangebyscore(self, *_: Any, **__: Any) -> list[bytes]:
        """arq's look for due jobs: what it did not take up last time, else new claims."""
        if not self._offered:
            self._offered = {claim.id: claim for claim in await self.claims.claim()}
        return [id_.encode() for id_ in self._offered]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        """arq's transactions are each about one job; its other pipeline asks how the server is."""
        return _JobConversation(self._offered) if transaction else _Questions(self)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """A single command of arq, asked until there is an answer.

        None where the store refuses it, as it does a sign of life when its memory is full, and
        where this worker leaves meanwhile.
        """
        while True:
            try:
                answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except ResponseError as error:
                logger.warning("the store refuses %s: %s", args[0], describe(error))
                return None
            except TROUBLE as error:
                try:
                    await self._patience.wait(error)
                except StoreUnavailable:
                    return None
            else:
                self._patience.over()
                return answer


class _Questions:
    """The pipeline of arq's `log_redis_info`, command by command: each waits for its answer."""

    def __init__(self, redis: ClaimingRedis) -> None:
        self._redis = redis
        self._asked: list[Callable[[], Awaitable[Any]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def info(self, section: str) -> None:
        self._asked.append(lambda: self._redis.info(section))

    def dbsize(self) -> None:
        self._asked.append(self._redis.dbsize)

    async def execute(self) -> list[Any]:
        return [await ask() or {} for ask in self._asked]


class _JobConversation:
    """One transaction of arq's worker about one job, with just the commands that arq 0.28 uses.

    Three kinds: taking it up (`Worker.start_jobs`), reading it (`run_job`), ending it
    (`finish_job`), which is nothing here. Another version's command is an AttributeError, at once.
    """

    def __init__(self, offered: dict[PredictionId, Claim]) -> None:
        self._offered = offered
        self._claim: Claim | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    # Taking up: WATCH in-progress, EXISTS in-progress, ZSCORE queue, MULTI, PSETEX in-progress.

    async def watch(self, key: str) -> bool:
        self._claim = self._offered.get(PredictionId(key.removeprefix(keys.IN_PROGRESS)))
        return True

    async def exists(self, _key: str) -> bool:
        return self._claim is None

    async def zscore(self, _queue: str, _id: str) -> float | None:
        # arq takes 0, and what is not past, for somebody else's, and dies of what no int can hold.
        return max(1.0, min(self._claim.turn, time.time() * 1000 - 1)) if self._claim else None

    def multi(self) -> None:
        pass

    def psetex(self, _key: str, _ms: int, _value: bytes) -> None:
        if self._claim:
            del self._offered[self._claim.id]

    # Reading: GET job, INCR tries, EXPIRE tries. Ending: ZREM, DEL.

    def get(self, _key: str) -> None:
        pass

    incr = expire = zrem = delete = lambda *_: None

    async def execute(self) -> list[Any]:
        return [b"-", 1, True]  # a job, its first try, and what EXPIRE says
