"""The deliverer's side of the store: which webhooks are due, and the outcomes of attempts."""

import asyncio
import contextlib
import math
from collections.abc import Iterable

from pydantic_core import to_json

from predictor.config import Config
from predictor.prediction import Attempt, Delivery, DeliveryState, PredictionId
from predictor.store import keys
from predictor.store.connection import connect
from predictor.store.retry import StoreRetry
from predictor.store.wire import TRACE, decode, decode_ended

_TIMEOUT = 5.0  # seconds of silence of the store after which a command is sent again
_CLAIM_BYTES = 8 * 2**20  # bytes of results in the reply to one claim, beyond the first


class Deliveries:
    """The webhooks that are due. Every call is retried until the store replies, or shutdown."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._redis = connect(config.store_url, silence=_TIMEOUT, socket_connect_timeout=1)
        self.retry = StoreRetry(self._redis)
        self._poll_every = min(1.0, config.lease / 4)  # seconds, for what nothing announces
        self._next_due = self._poll_every

    async def close(self) -> None:
        await self._redis.aclose(close_connection_pool=True)

    async def claim(self, most: int, held: Iterable[PredictionId]) -> dict[PredictionId, Delivery]:
        """What is due, leased to this deliverer; the leases of `held` are renewed."""
        args = (round(1000 * self._config.lease), most, _CLAIM_BYTES, *held)
        next_ms, *due = await self.retry.until_end(self.retry.scripts.run, "deliver", *args) or [-1]
        self._next_due = self._poll_every if next_ms < 0 else min(next_ms / 1000, self._poll_every)
        claimed = {}
        for name, url, result, trace, *counts in due:
            tries, before, since = (int(text) if text.isdigit() else 0 for text in counts)
            ended = decode_ended(PredictionId(name.decode()), result)
            recent, traced = max(0, tries - before), decode(TRACE, trace) or {}
            claimed[ended.id] = Delivery(url.decode(), ended, recent, since / 1000, traced)
        return claimed

    async def wait(self) -> None:
        """Return when a webhook may be due; in less than a lease."""
        pause, call = max(0.01, self._next_due), self._redis.execute_command
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause + 1):  # a server whose clock was set back forgets it
                await self.retry.until_end(call, "BLPOP", keys.DELIVERY_WAKE, pause)

    async def record(
        self, delivery: Delivery, attempt: Attempt, state: DeliveryState, pause: float | None
    ) -> None:
        """Keep the outcome of an attempt; the next is in `pause` seconds, if there is one."""
        id_, since_ms = delivery.prediction.id, round(delivery.since * 1000)
        next_in = "" if pause is None else math.ceil(pause * 1000)
        kept = round(self._config.result_ttl * 1000) if state is DeliveryState.DELIVERED else ""
        args = (id_, round(attempt.at * 1000), to_json(attempt), state, next_in, kept, since_ms)
        await self.retry.until_end(self.retry.scripts.run, "record", *args)

    async def put_off(self, id_: PredictionId, seconds: float) -> None:
        """Have it due later, or now for another deliverer, without an attempt."""
        now = await self.retry.until_end(self._redis.time)
        due = 1000 * ((now[0] + now[1] / 1_000_000 if now else 0.0) + seconds)
        await self.retry.until_end(lambda: self._redis.zadd(keys.DELIVERIES, {id_: due}, xx=True))
