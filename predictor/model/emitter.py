"""Sends the events of a run: outputs at once and in order, of progress the latest in a while."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable

from predictor.errors import ModelFailed
from predictor.prediction import EventKind, Json

Events = list[tuple[EventKind, Json]]

_INTERVAL = 0.1  # seconds between two progress events
#: Outputs in one call, and bytes of them beyond the first: the store is blocked meanwhile.
_AT_ONCE, _BYTES_AT_ONCE = 1000, 8 * 2**20
_MOST_UNSENT = 64 * 2**20  # unsent bytes above which a model fails


class Emitter:
    def __init__(self, send: Callable[[int, Events], Awaitable[None]]) -> None:
        """`send` takes the number of the first event, from 1, and the events."""
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._lock, self._changed = threading.Lock(), asyncio.Event()
        self._outputs: deque[Json] = deque()
        self._unsent = 0  # bytes of `_outputs`
        self._progress: Json | None = None
        self._is_closed = False
        self._sending = self._loop.create_task(self._run())

    def emit(self, kind: EventKind, data: Json) -> None:
        """Send an event, unless closed. Thread-safe. Raises ModelFailed for too many."""
        with self._lock:
            if self._is_closed:
                return
            if kind is EventKind.PROGRESS:
                self._progress = data
            elif self._unsent > _MOST_UNSENT:
                raise ModelFailed("The model hands out its output faster than the store takes it.")
            else:
                self._outputs.append(data)
                self._unsent += len(data)
        if not self._changed.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._changed.set)

    async def close(self) -> None:
        """Return when all events have been sent."""
        self._is_closed = True
        self._changed.set()
        await self._sending

    async def _run(self) -> None:
        sent, due, is_closed = 0, 0.0, False
        while not is_closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if self._progress is None else due):
                    await self._changed.wait()
            self._changed.clear()
            is_closed = self._is_closed
            while events := self._take(with_progress=is_closed or self._loop.time() >= due):
                if events[-1][0] is EventKind.PROGRESS:
                    due = self._loop.time() + _INTERVAL
                await self._send(sent + 1, events)
                sent += len(events)

    def _take(self, *, with_progress: bool) -> Events:
        events, size = Events(), 0
        with self._lock:
            while self._outputs and len(events) < _AT_ONCE and size <= _BYTES_AT_ONCE:
                events.append((EventKind.OUTPUT, self._outputs.popleft()))
                size += len(events[-1][1])
            self._unsent -= size
            if with_progress and self._progress is not None:
                events.append((EventKind.PROGRESS, self._progress))
                self._progress = None
        return events
