"""The deliverer's side of the store: which webhooks are due, and what came of them."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from redis.asyncio import Redis

from predictor.errors import Expired, StoreUnavailable, TimedOut
from predictor.prediction import Attempt, Delivery, DeliveryState, PredictionId
from predictor.store import keys
from predictor.store.connection import connection_pool
from predictor.store.retry import StoreRetry
from predictor.store.scripts import script
from predictor.store.wire import decode_ended, encode_attempt, encode_unrun

#: Seconds of silence of the store after which it is asked again.
_TIMEOUT = 5.0

#: Bytes of results in the answer to one claim, beyond the first.
_CLAIM_BYTES = 8 * 2**20


class Deliveries:
    """The webhooks that are due. Every call waits out trouble with the store."""

    def __init__(self, url: str, *, lease: float, result_ttl: float) -> None:
        """`lease`: seconds after which what a dead deliverer held is due again."""
        pool = connection_pool(url, silence=_TIMEOUT, socket_connect_timeout=1)
        self._redis: Redis = Redis(connection_pool=pool)
        self._retry = StoreRetry()
        self._lease = lease
        #: seconds after which it is time to look, though nothing was said
        self._look_every = min(1.0, lease / 4)
        self._result_ttl = result_ttl
        self._next_due = self._look_every
        self._deliver = self._redis.register_script(script("deliver"))
        self._record = self._redis.register_script(script("record"))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose(close_connection_pool=True)

    def leave(self, seconds: float) -> None:
        """Wait for the store no longer than that, from now on."""
        self._retry.give_up_after(seconds)

    async def claim(
        self, at_most: int, held: Iterable[PredictionId]
    ) -> dict[PredictionId, Delivery]:
        """What is due, nobody else's for a lease; `held` stays this deliverer's for another."""
        ends = [encode_unrun(why) for why in (Expired(), TimedOut())]
        args: list[Any] = [round(self._lease * 1000), at_most, _CLAIM_BYTES, *ends]
        args += [*keys.lives(self._result_ttl), *held]
        next_ms, *due = await self._until_answered(lambda: self._deliver(args=args)) or [-1]
        self._next_due = self._look_every if next_ms < 0 else min(next_ms / 1000, self._look_every)
        claimed = {}
        for name, url, result, tries, before, since in due:
            id_ = PredictionId(name.decode())
            known = [int(number) if number.isdigit() else 0 for number in (tries, before, since)]
            recent, asked_at = max(0, known[0] - known[1]), known[2] / 1000
            claimed[id_] = Delivery(url.decode(), decode_ended(id_, result), recent, asked_at)
        return claimed

    async def wait(self) -> None:
        """Until a webhook may be due, or it is time to look; less than a lease."""
        pause = max(0.01, self._next_due)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause + 1):  # a server whose clock was set back forgets it
                await self._until_answered(
                    lambda: self._redis.execute_command("BLPOP", keys.DELIVERY_WAKE, pause)
                )

    async def record(
        self,
        delivery: Delivery,
        attempt: Attempt,
        state: DeliveryState,
        pause: float | None,
    ) -> None:
        """Keep what came of an attempt; the next is in `pause` seconds, if there is one."""
        id_, since_ms = delivery.prediction.id, round(delivery.since * 1000)
        next_in = "" if pause is None else math.ceil(pause * 1000)
        kept = round(self._result_ttl * 1000) if state is DeliveryState.DELIVERED else ""
        args: list[Any] = [id_, round(attempt.at * 1000), encode_attempt(attempt), state]
        args += [next_in, kept, since_ms]
        await self._until_answered(lambda: self._record(args=args))

    async def put_off(self, id_: PredictionId, seconds: float) -> None:
        """Have it due later, or now for another deliverer, without an attempt."""
        at = await self._now() + seconds
        await self._until_answered(
            lambda: self._redis.zadd(keys.DELIVERIES, {id_: at * 1000}, xx=True)
        )

    async def _now(self) -> float:
        """The store's clock, seconds since 1970."""
        reply = await self._until_answered(self._redis.time)
        return float(reply[0] + reply[1] / 1_000_000) if reply else 0.0

    async def _until_answered(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of the store, whenever it comes; None when leaving without."""
        with contextlib.suppress(StoreUnavailable):
            return await self._retry.until_answered(self._redis, call)
