"""Who waits for a prediction is woken when it changes: one connection for all of one process."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

from predictor.prediction import EventKind, PredictionId
from predictor.store import keys
from predictor.store.connection import connection_pool
from predictor.store.retry import describe

logger = logging.getLogger(__name__)

#: Seconds until the connection is tried again.
_PAUSE = 0.2

#: Seconds that the store has for one command.
_PATIENCE = 1.0

#: Seconds of silence after which the connection is asked whether it lives.
_SILENCE = 2.0

#: A channel of our own: a connection without one could not be listened to.
_NOBODY = keys.EVENTS + "-"


class Changes:
    """Word of changes, by id. A hint: who is woken, or was cut off, reads the prediction again."""

    def __init__(self, url: str) -> None:
        # Without a limit of time for an answer: there may be no news for hours.
        pool = connection_pool(url, socket_connect_timeout=_PATIENCE)
        self._redis: Redis = Redis(connection_pool=pool)
        #: for each channel who waits, and whether for the end only
        self._waiting: dict[str, dict[asyncio.Event, bool]] = {}
        self._changed = asyncio.Event()
        self._connection: asyncio.Task[None] | None = None
        #: nobody should wait for more: the process is to end
        self.is_closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection:
            self._connection.cancel()
            await asyncio.wait({self._connection})
        await self._redis.aclose(close_connection_pool=True)

    def close(self) -> None:
        """Wake all who wait, to go."""
        self.is_closing = True
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()

    @contextlib.asynccontextmanager
    async def subscribe(
        self, id_: PredictionId, *, only_end: bool = False
    ) -> AsyncIterator[asyncio.Event]:
        """An event that is set when something happens to the prediction, or may have.

        It is set, too, when nothing can be missed any more: at first it can.
        """
        if self._connection is None:
            self._connection = asyncio.create_task(self._connect())
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
                    async with asyncio.timeout(_PATIENCE):
                        await pubsub.subscribe(_NOBODY)
                    tasks.create_task(self._subscribe(pubsub))
                    tasks.create_task(self._listen(pubsub))
            except Exception as error:  # whatever it is, somebody waits for news
                cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                is_new = isinstance(cause, ResponseError) and describe(cause) != refused
                logger.log(
                    logging.WARNING if is_new else logging.DEBUG,
                    "changes are seen late, the store refuses its channels (%s)",
                    refused := describe(cause),
                )
                await asyncio.sleep(_PAUSE)

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Keep the connection subscribed to what is waited for."""
        subscribed: set[str] = set()
        while True:
            self._changed.clear()
            wanted = set(self._waiting)
            async with asyncio.timeout(_PATIENCE):
                if new := wanted - subscribed:
                    await pubsub.subscribe(*new)
                if gone := subscribed - wanted:
                    await pubsub.unsubscribe(*gone)
            subscribed = wanted
            await self._changed.wait()

    async def _listen(self, pubsub: PubSub) -> None:
        """Wake who waits. Raises TimeoutError when the connection is dead."""
        is_asked = False
        while True:
            message = await pubsub.get_message(timeout=_PATIENCE if is_asked else _SILENCE)
            if message:
                is_asked = False
                self._wake(message)
            elif is_asked:
                raise TimeoutError
            else:
                is_asked = True
                async with asyncio.timeout(_PATIENCE):
                    await pubsub.ping()

    def _wake(self, message: dict[str, Any]) -> None:
        # That a channel is subscribed is news, too: now nothing is missed.
        is_end = message["type"] != "message" or message["data"] == EventKind.COMPLETED.encode()
        for event, only_end in self._waiting.get((message["channel"] or b"").decode(), {}).items():
            if is_end or not only_end:
                event.set()
