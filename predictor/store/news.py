"""Who waits for a prediction is woken when it changes: one connection for all of one process."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Self

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from predictor.prediction import PredictionId
from predictor.store import keys
from predictor.store.connection import connection_pool
from predictor.store.patience import TROUBLE, describe

logger = logging.getLogger(__name__)

#: Seconds until the connection is tried again.
_PAUSE = 0.2

#: A channel of our own: a subscription needs one, before anybody waits.
_NOBODY = keys.EVENTS + "-"


class News:
    """Word of changes, by id. A hint: who is woken, or was cut off, reads the prediction again."""

    def __init__(self, url: str) -> None:
        # Without a limit of time for an answer: there may be no news for hours.
        pool = connection_pool(url, socket_connect_timeout=1)
        self._redis = Redis(connection_pool=pool)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._pubsub: PubSub | None = None
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Task[None] | None = None
        #: nobody should wait for more: the process is to end
        self.is_over = False

    def end(self) -> None:
        """Wake all who wait, to go."""
        self.is_over = True
        for channel in self._waiting:
            self._wake(channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._leaving:
            await asyncio.wait(self._leaving)
        if self._listener:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        await self._redis.aclose(close_connection_pool=True)

    @contextlib.asynccontextmanager
    async def about(self, id_: PredictionId) -> AsyncIterator[asyncio.Event]:
        """An event that is set when something happens to the prediction, or may have.

        It is set once right away, when nothing can be missed any more.
        """
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        channel, event = keys.EVENTS + id_, asyncio.Event()
        waiting = self._waiting.setdefault(channel, set())
        waiting.add(event)
        if len(waiting) == 1:
            await self._subscribe(channel)
        else:
            event.set()
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting and self._waiting.get(channel) is waiting:
                del self._waiting[channel]
                # Not here: who waited may be canceled, and could not wait for this.
                leaving = asyncio.create_task(self._unsubscribe(channel))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    async with self._changing:
                        await pubsub.subscribe(_NOBODY, *self._waiting)
                        self._pubsub = pubsub
                    async for message in pubsub.listen():
                        # That a channel is subscribed is news, too: now nothing is missed.
                        self._wake(message["channel"].decode())
            except TROUBLE as error:
                self._pubsub = None
                logger.debug("no news (%s); trying again", describe(error))
                await asyncio.sleep(_PAUSE)

    def _wake(self, channel: str) -> None:
        for event in self._waiting.get(channel, ()):
            event.set()

    async def _subscribe(self, channel: str) -> None:
        # Where there is no connection, the next one subscribes to all that are waited for.
        async with self._changing:
            if self._pubsub:
                with contextlib.suppress(*TROUBLE):
                    await self._pubsub.subscribe(channel)

    async def _unsubscribe(self, channel: str) -> None:
        async with self._changing:
            # Somebody may have come to wait for it meanwhile.
            if self._pubsub and channel not in self._waiting:
                with contextlib.suppress(*TROUBLE):
                    await self._pubsub.unsubscribe(channel)
