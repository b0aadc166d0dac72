"""Delivers the webhooks that are due, and records the outcome of each attempt."""

import asyncio
import logging
import random
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from predictor.prediction import Attempt, Delivery, DeliveryState, PredictionId
from predictor.store.deliveries import Deliveries
from predictor.traces import Traces
from predictor.webhooks.sender import Sender, payload

logger = logging.getLogger(__name__)

#: Concurrent attempts and their bytes, above which slow ones are cut short; attempts to one host.
_AT_ONCE, _BYTES_AT_ONCE, _AT_ONE_HOST = 400, 64 * 2**20, 50
_LIMIT, _PROMPT = 15.0, 2.0  # seconds: timeout of an attempt, and when it counts as slow
_LONGEST_PAUSE = 3600.0  # seconds between two attempts, give or take a tenth
_GIVE_UP_AFTER = 24 * 3600.0  # seconds


class Deliverer:
    """One process's deliveries. Receivers that do not answer delay no new deliveries for long."""

    def __init__(self, deliveries: Deliveries, sender: Sender, traces: Traces | None) -> None:
        self._deliveries, self._sender, self._traces = deliveries, sender, traces
        self._running: dict[PredictionId, asyncio.Task[None]] = {}
        #: host, bytes and timeout of attempts without an answer, the oldest first
        self._sending: dict[PredictionId, tuple[str, int, asyncio.Timeout]] = {}
        self._recording = asyncio.Semaphore(16)  # each takes a connection to the store

    async def run(self, stop: asyncio.Event, drain: float) -> None:
        """Deliver until `stop`; running attempts then get `drain` seconds."""
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._deliveries.retry.give_up_after(drain))
        while not stopping.done():
            slow = self._slow()  # may all be cut short
            is_full = self._held(self._sending) - self._held(slow) >= _BYTES_AT_ONCE
            capacity = 0 if is_full else max(0, _AT_ONCE + len(slow) - len(self._running))
            claimed = await self._deliveries.claim(capacity, self._running)
            if claimed:
                for id_ in list(claimed):
                    task = self._running[id_] = asyncio.create_task(self._deliver(claimed.pop(id_)))
                    task.add_done_callback(partial(self._running.pop, id_))
                await asyncio.sleep(0)  # they start to send
                for id_ in self._slow():
                    if len(self._sending) > _AT_ONCE or self._held(self._sending) > _BYTES_AT_ONCE:
                        self._sending.pop(id_)[2].reschedule(0)
            else:
                wait = self._deliveries.wait() if capacity else asyncio.sleep(0.05)
                due = asyncio.create_task(wait)
                await asyncio.wait({stopping, due}, return_when=asyncio.FIRST_COMPLETED)
                due.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=drain)
        for id_, task in list(self._running.items()):
            task.cancel()
            await self._deliveries.put_off(id_, 0)

    def _slow(self) -> list[PredictionId]:
        """Attempts that may be cut short, the oldest first."""
        latest = asyncio.get_running_loop().time() + _LIMIT - _PROMPT
        limits = {id_: limit for id_, (_, _, limit) in self._sending.items()}
        return [i for i, at in limits.items() if (at.when() or 0) < latest and not at.expired()]

    def _held(self, ids: Iterable[PredictionId]) -> int:
        return sum(self._sending[id_][1] for id_ in ids)

    async def _deliver(self, delivery: Delivery) -> None:
        id_, host = delivery.prediction.id, urlsplit(delivery.url).hostname or ""
        if [other for other, *_ in self._sending.values()].count(host) >= _AT_ONE_HOST:
            async with self._recording:
                await self._deliveries.put_off(id_, random.uniform(1, 5))  # noqa: S311
            return
        body, limit = payload(delivery.prediction), asyncio.timeout(_LIMIT)
        self._sending[id_] = host, len(body), limit
        # The body has the output: do not hold it twice.
        delivery = replace(delivery, prediction=replace(delivery.prediction, output=None))
        send = partial(self._sender.send, delivery.url, f"msg_{id_}", body, limit)
        try:
            if self._traces and delivery.trace:
                attempt = await self._traces.webhook(delivery.trace, id_, host, send)
            else:
                attempt = await send({})
        finally:
            self._sending.pop(id_, None)
        state, pause = state_after(attempt, delivery)
        if state is DeliveryState.FAILED:
            logger.warning("the webhook of %s is given up: %s", id_, attempt.error)
        async with self._recording:
            await self._deliveries.record(delivery, attempt, state, pause)


def state_after(attempt: Attempt, delivery: Delivery) -> tuple[DeliveryState, float | None]:
    """The state of the delivery, and seconds until the next attempt."""
    if attempt.error is None:
        return DeliveryState.DELIVERED, None
    tries = delivery.recent_tries + 1
    pause = min(2.0 ** min(tries, 20), _LONGEST_PAUSE) * random.uniform(0.9, 1.1)  # noqa: S311
    pause = max(pause, attempt.retry_after or 0.0)
    if attempt.status == 410 or time.time() + pause - delivery.since > _GIVE_UP_AFTER:
        return DeliveryState.FAILED, None
    return DeliveryState.PENDING, pause
