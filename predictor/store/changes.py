"""Wakes waiters when a prediction changes, over one connection for the whole process."""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

from predictor.prediction import EventKind, Prediction, PredictionId
from predictor.process import is_set_within
from predictor.store import keys
from predictor.store.connection import connect
from predictor.store.retry import describe
from predictor.store.wire import decode_ended

logger = logging.getLogger(__name__)

_PAUSE = 0.2  # seconds until the connection is tried again
#: Seconds between two probes of a connection, and of silence after which it is dead.
_PROBE_EVERY, _SILENCE = 2.0, 3.0


def give_up(ended: asyncio.Future[Prediction | None]) -> None:
    """Have the prediction read by whoever waits for its end."""
    if not ended.done():
        ended.set_result(None)


class Changes(contextlib.AbstractAsyncContextManager["Changes"]):
    """Changes of predictions, by id. They are hints: a waiter that is woken reads it again.

    A prediction that is submitted with the `channel` of this process brings its result along.
    """

    def __init__(self, url: str) -> None:
        self._redis = connect(url, silence=_SILENCE, socket_connect_timeout=1)
        #: the waiters of each channel, and whether they wait for the end only
        self._waiting: dict[str, dict[asyncio.Event, bool]] = {}
        #: those that were submitted with the channel; None: to be read
        self._expected: dict[str, asyncio.Future[Prediction | None]] = {}
        self.channel = keys.ENDED + secrets.token_hex(8)
        self._is_listening = False
        self._changed = asyncio.Event()
        self._connection: asyncio.Task[None] | None = None
        self.is_closing = False

    async def __aexit__(self, *_: object) -> None:
        if self._connection:
            self._connection.cancel()
            await asyncio.wait({self._connection})
        await self._redis.aclose(close_connection_pool=True)

    def close(self) -> None:
        """Wake all waiters for good."""
        self.is_closing = True
        self._give_up()
        for event in itertools.chain(*self._waiting.values()):
            event.set()

    def expect(self, id_: PredictionId) -> asyncio.Future[Prediction | None]:
        """A prediction that will be submitted, when it has ended; None: it is to be read."""
        self._connect_once()
        ended = self._expected[id_] = asyncio.get_running_loop().create_future()
        ended.add_done_callback(lambda _: self._expected.pop(id_, None))
        if not self._is_listening or self.is_closing:
            ended.set_result(None)
        return ended

    def _give_up(self) -> None:
        for ended in self._expected.values():
            give_up(ended)

    def _connect_once(self) -> None:
        if self._connection is None:
            self._connection = asyncio.create_task(self._connect())

    @contextlib.asynccontextmanager
    async def subscribe(
        self, id_: PredictionId, *, only_end: bool = False
    ) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the prediction changes, and once when it is subscribed to."""
        self._connect_once()
        channel, event = keys.EVENTS + id_, asyncio.Event()
        self._waiting.setdefault(channel, {})[event] = only_end
        self._changed.set()
        try:
            yield event
        finally:
            waiting = self._waiting[channel]
            del waiting[event]
            if not waiting:
                del self._waiting[channel]
                self._changed.set()

    async def _connect(self) -> None:
        refused = ""
        while True:
            try:
                async with self._redis.pubsub() as pubsub, asyncio.TaskGroup() as tasks:
                    await pubsub.subscribe(self.channel)
                    tasks.create_task(self._subscribe(pubsub))
                    async for message in pubsub.listen():
                        self._wake(message)
            except Exception as error:  # whatever it is, there are waiters
                self._is_listening = False
                self._give_up()
                cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                if isinstance(cause, ResponseError) and describe(cause) != refused:
                    refused = describe(cause)
                    text = "changes are seen late, the store refuses its channels (%s)"
                    logger.warning(text, refused)
                await asyncio.sleep(_PAUSE)

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Keep the connection subscribed to the channels that have waiters, and probe it."""
        subscribed: set[str] = set()
        while True:
            self._changed.clear()
            wanted = set(self._waiting)
            if new := wanted - subscribed:
                await pubsub.subscribe(*new)
            if gone := subscribed - wanted:
                await pubsub.unsubscribe(*gone)
            subscribed = wanted
            if not await is_set_within(_PROBE_EVERY, self._changed):
                await pubsub.ping()

    def _wake(self, message: dict[str, Any]) -> None:
        is_message, data = message["type"] == "message", message["data"]
        if message["channel"] == self.channel.encode():
            self._is_listening = True
            name, _, result = data.partition(b" ") if is_message else (b"", b"", b"")
            id_ = PredictionId(name.decode(errors="replace"))
            if (ended := self._expected.get(id_)) and not ended.done():
                ended.set_result(decode_ended(id_, result) if result else None)
            return
        # A confirmed subscription wakes, too: from now on nothing is missed.
        is_end = not is_message or data == EventKind.COMPLETED.encode()
        for event, only_end in self._waiting.get((message["channel"] or b"").decode(), {}).items():
            if is_end or not only_end:
                event.set()
