"""Sends the events of a run to the store."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable

from predictor.errors import ModelFailed
from predictor.prediction import EventKind, Json

#: Seconds between two progress events.
_INTERVAL = 0.1

#: Outputs in one call, and bytes of them beyond the first: the store is blocked meanwhile.
_AT_ONCE, _BYTES_AT_ONCE = 1000, 8 * 2**20

#: Unsent bytes above which a model fails.
_MOST_UNSENT = 64 * 2**20

Events = list[tuple[EventKind, Json]]


class Emitter:
    """Sends outputs at once and in order. Progress is coalesced: the latest of each interval."""

    def __init__(self, send: Callable[[int, Events], Awaitable[None]]) -> None:
        """`send` takes the number of the first event, from 1, and the events."""
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._outputs: deque[Json] = deque()
        self._unsent = 0
        self._progress: Json | None = None
        self._is_awake = False
        self._closing = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._due = 0.0
        self._sent = 0

    def emit(self, kind: EventKind, data: Json) -> None:
        """Send an event, unless closed. Thread-safe. Raises ModelFailed for too many."""
        with self._lock:
            if self._closing.is_set():
                return
            if kind is EventKind.PROGRESS:
                self._progress = data
            elif self._unsent > _MOST_UNSENT:
                raise ModelFailed("The model hands out its output faster than the store takes it.")
            else:
                self._outputs.append(data)
                self._unsent += len(data)
            if self._is_awake:
                return
            self._is_awake = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._wake)

    async def close(self) -> None:
        """Return when all events have been sent."""
        self._closing.set()
        if self._sending:
            await self._sending
        await self._flush()

    def _wake(self) -> None:
        if not self._closing.is_set():
            self._sending = self._loop.create_task(self._flush())

    async def _flush(self) -> None:
        while (events := self._take()) is not None:
            if events:
                await self._send(self._sent + 1, events)
                self._sent += len(events)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), self._due - self._loop.time())

    def _take(self) -> Events | None:
        """The events to send now; None if there are none, now or later."""
        now = self._loop.time()
        with self._lock:
            events: Events = []
            size = 0
            while self._outputs and len(events) < _AT_ONCE and size <= _BYTES_AT_ONCE:
                events.append((EventKind.OUTPUT, self._outputs.popleft()))
                size += len(events[-1][1])
            self._unsent -= size
            if self._progress is not None and (now >= self._due or self._closing.is_set()):
                events.append((EventKind.PROGRESS, self._progress))
                self._progress, self._due = None, now + _INTERVAL
            self._is_awake = bool(events) or self._progress is not None
            return events if self._is_awake else None
