"""Delivers webhooks: takes those that are due, sends each, writes down what came of it."""

import asyncio
import logging
import random
import time
from dataclasses import replace
from urllib.parse import urlsplit

from pydantic_core import to_json

from predictor.prediction import (
    Attempt,
    Delivery,
    DeliveryState,
    Prediction,
    PredictionId,
    timestamp,
)
from predictor.store.deliveries import Deliveries
from predictor.webhooks.schedule import next_attempt
from predictor.webhooks.sender import Sender

logger = logging.getLogger(__name__)

#: Attempts at once, and bytes of their bodies: above, those that are slow give way to new ones.
#: To one host fewer: more would be rude to a receiver that answers.
_AT_ONCE, _BYTES_AT_ONCE, _AT_ONE_HOST = 400, 64 * 2**20, 50

#: Seconds that an attempt has, and after which it is slow.
_LIMIT, _PROMPT = 15.0, 2.0


class Deliverer:
    """One process's deliveries. What is new never waits long for receivers that do not answer."""

    def __init__(self, deliveries: Deliveries, sender: Sender) -> None:
        self._deliveries = deliveries
        self._sender = sender
        self._running: dict[PredictionId, asyncio.Task[None]] = {}
        #: host, bytes and limit of those that are not answered yet, the oldest first
        self._sending: dict[PredictionId, tuple[str, int, asyncio.Timeout]] = {}
        self._recording = asyncio.Semaphore(16)  # each takes a connection to the store

    async def run(self, stop: asyncio.Event, drain: float) -> None:
        """Deliver until `stop`; attempts that run then get `drain` seconds."""
        leaving = asyncio.create_task(stop.wait())
        leaving.add_done_callback(lambda _: self._deliveries.leave(drain))
        while not leaving.done():
            room = self._room()
            claimed = await self._deliveries.claim(room, self._running)
            if claimed:
                for id_ in list(claimed):
                    self._start(id_, claimed.pop(id_))
                self._make_room()
            else:
                news = asyncio.create_task(self._deliveries.wait() if room else asyncio.sleep(0.05))
                await asyncio.wait({leaving, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=drain)
        for id_, task in list(self._running.items()):
            task.cancel()
            await self._deliveries.put_off(id_, 0)

    def _slow(self) -> list[PredictionId]:
        """The attempts that may be cut short, the oldest first."""
        latest = asyncio.get_running_loop().time() + _LIMIT - _PROMPT
        return [
            id_
            for id_, (_, _, limit) in self._sending.items()
            if (limit.when() or 0) < latest and not limit.expired()
        ]

    def _held(self, ids: list[PredictionId]) -> int:
        return sum(self._sending[id_][1] for id_ in ids)

    def _room(self) -> int:
        """How many more may be tried now, if all that are slow give way."""
        slow = self._slow()
        is_full = self._held(list(self._sending)) - self._held(slow) >= _BYTES_AT_ONCE
        return 0 if is_full else max(0, _AT_ONCE + len(slow) - len(self._running))

    def _make_room(self) -> None:
        """Cut short those that have been slow for longest, as far as new ones need their room."""
        for id_ in self._slow():
            if len(self._sending) <= _AT_ONCE and self._held(list(self._sending)) <= _BYTES_AT_ONCE:
                break
            self._sending.pop(id_)[2].reschedule(0)

    def _start(self, id_: PredictionId, delivery: Delivery) -> None:
        host = urlsplit(delivery.url).hostname or ""
        if [other for other, *_ in self._sending.values()].count(host) < _AT_ONE_HOST:
            body, limit = message(delivery.prediction), asyncio.timeout(_LIMIT)
            self._sending[id_] = host, len(body), limit
            # The output is in the body: it is not held twice.
            delivery = replace(delivery, prediction=replace(delivery.prediction, output=None))
            work = self._deliver(delivery, body, limit)
        else:
            work = self._put_off(id_)
        task = self._running[id_] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._running.pop(id_, None))

    async def _put_off(self, id_: PredictionId) -> None:
        async with self._recording:
            await self._deliveries.put_off(id_, random.uniform(1, 5))  # noqa: S311

    async def _deliver(self, delivery: Delivery, body: bytes, limit: asyncio.Timeout) -> None:
        id_ = delivery.prediction.id
        try:
            attempt = await self._sender.send(delivery.url, f"msg_{id_}", body, limit)
        finally:
            self._sending.pop(id_, None)
        state, pause = _consequence(delivery, attempt)
        if state is DeliveryState.FAILED:
            logger.warning("the webhook of %s is given up: %s", id_, attempt.error)
        async with self._recording:
            await self._deliveries.record(delivery, attempt, state, pause)


def message(prediction: Prediction) -> bytes:
    """The body: type, timestamp and data, as Standard Webhooks advises. Always the same."""
    data = b'"prediction_id":%b,"status":%b' % (to_json(prediction.id), to_json(prediction.state))
    if prediction.output:
        data += b',"output":%b' % prediction.output.to_json()
    elif prediction.error:
        data += b',"error":%b' % to_json(prediction.error.message)
    return b'{"type":%b,"timestamp":%b,"data":{%b}}' % (
        to_json(f"prediction.{prediction.state}"),
        to_json(timestamp(prediction.finished or 0)),
        data,
    )


def _consequence(delivery: Delivery, attempt: Attempt) -> tuple[DeliveryState, float | None]:
    """What follows from an attempt: the state, and seconds until the next."""
    match attempt.outcome:
        case "delivered":
            return DeliveryState.DELIVERED, None
        case "gone":
            return DeliveryState.FAILED, None
    pause = next_attempt(
        delivery.recent_tries + 1, delivery.since, time.time(), attempt.retry_after
    )
    return DeliveryState.FAILED if pause is None else DeliveryState.PENDING, pause
