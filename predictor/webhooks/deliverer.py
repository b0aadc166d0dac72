"""Delivers webhooks: takes those that are due, sends each, writes down what came of it."""

import asyncio
import logging
import random
import time
from collections import Counter
from urllib.parse import urlsplit

from pydantic_core import to_json

from predictor.delivery import Attempt, Delivery, DeliveryState
from predictor.prediction import Prediction, PredictionId, timestamp
from predictor.store.deliveries import Deliveries
from predictor.webhooks.schedule import next_attempt
from predictor.webhooks.sender import Sender

logger = logging.getLogger(__name__)

#: Attempts at once, and to one host: a slow receiver must not keep others from being told.
_AT_ONCE, _AT_ONE_HOST = 200, 50


class Deliverer:
    """One process's deliveries."""

    def __init__(self, deliveries: Deliveries, sender: Sender) -> None:
        self._deliveries = deliveries
        self._sender = sender
        self._running: dict[PredictionId, asyncio.Task[None]] = {}
        self._hosts: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event, drain: float) -> None:
        """Deliver until `stop`; attempts that run then get `drain` seconds."""
        leaving = asyncio.create_task(stop.wait())
        leaving.add_done_callback(lambda _: self._deliveries.leave(drain))
        while not leaving.done():
            free = _AT_ONCE - len(self._running)
            claimed = await self._deliveries.claim(free, self._running)
            for id_, delivery in claimed.items():
                self._start(id_, delivery)
            if len(claimed) < free:
                news = asyncio.create_task(self._deliveries.wait())
                await asyncio.wait({leaving, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
            elif len(self._running) == _AT_ONCE:
                await asyncio.wait(
                    {leaving, *self._running.values()},
                    timeout=self._deliveries.patience,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        if self._running:
            await asyncio.wait(self._running.values(), timeout=drain)
        for id_, task in list(self._running.items()):
            task.cancel()
            await self._deliveries.put_off(id_, 0)

    def _start(self, id_: PredictionId, delivery: Delivery) -> None:
        task = asyncio.create_task(self._deliver(id_, delivery))
        self._running[id_] = task
        task.add_done_callback(lambda _: self._running.pop(id_, None))

    async def _deliver(self, id_: PredictionId, delivery: Delivery) -> None:
        host = urlsplit(delivery.url).hostname or ""
        if self._hosts[host] >= _AT_ONE_HOST:
            await self._deliveries.put_off(id_, random.uniform(1, 5))  # noqa: S311
            return
        self._hosts[host] += 1
        try:
            attempt = await self._sender.send(
                delivery.url, f"msg_{id_}", message(delivery.prediction)
            )
        finally:
            self._hosts[host] -= 1
        state, pause = _consequence(delivery, attempt)
        if state is DeliveryState.FAILED:
            logger.warning("the webhook of %s is given up: %s", id_, attempt.error)
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
