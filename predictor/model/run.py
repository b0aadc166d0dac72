"""One run: what it reports by the second parameter of its model, and how that is sent."""

import asyncio
import contextlib
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from predictor.errors import ModelFailed, PredictionError
from predictor.model.encoding import encode_json
from predictor.prediction import EventKind, Json

Outcome = Json | PredictionError
Events = list[tuple[str, Json]]

_MESSAGE = 1000  # longest message of a progress, in characters
_INTERVAL = 0.1  # seconds between two progress events
#: Outputs in one call, and bytes of them beyond the first: the store is blocked meanwhile.
_AT_ONCE, _BYTES_AT_ONCE = 1000, 8 * 2**20
_MOST_UNTAKEN = 64 * 2**20  # bytes that are not taken above which a model fails


@dataclass(eq=False)
class Run:
    """One run of one prediction. Thread-safe. Only async predictions have events."""

    id: str  # the prediction's; the same in every try
    deadline: float  # when this run times out, in seconds since 1970
    #: For Predictor itself: sends an event whose data is JSON.
    emit: Callable[[EventKind, Json], None] = field(default=lambda *_: None, repr=False)
    max_result: int = field(default=sys.maxsize, repr=False)
    #: Whether the result is no longer wanted: canceled, or timed out. An `async def` is
    #: canceled then. A `def` cannot be: it should check this, and return.
    canceled: bool = field(default=False, init=False)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, from 0 to 1. At most ten a second are sent, and always the last.

        Raises ValueError if `fraction` is NaN.
        """
        if math.isnan(fraction):
            raise ValueError("progress must be a number from 0 to 1, not NaN")
        share = min(max(float(fraction), 0.0), 1.0)
        data = to_json({"fraction": share, "message": str(message)[:_MESSAGE]})
        self.emit(EventKind.PROGRESS, Json(data))

    def output(self, piece: Any) -> Json:
        """Send a part of the output, any JSON value, before the result is complete.

        Returns it as JSON. Raises ModelFailed if it is none, or larger than PREDICTOR_MAX_RESULT.
        """
        written = encode_json(piece, self.max_result)
        self.emit(EventKind.OUTPUT, written)
        return written


class Abandoned(set[asyncio.Future[Any]]):
    """Calls that still run though they were canceled."""

    def add(self, call: asyncio.Future[Any]) -> None:
        """Count a call until it ends."""
        super().add(call)
        call.add_done_callback(self.discard)
        # asyncio logs exceptions that were never retrieved.
        call.add_done_callback(lambda call: call.cancelled() or call.exception())


class Emitter:
    """A run's events until they are taken: outputs in order, of progress the latest in a while."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock, self._changed = threading.Lock(), asyncio.Event()
        self._outputs: deque[Json] = deque()
        self._untaken = 0  # bytes of `_outputs`
        self._progress: Json | None = None
        self._due = 0.0  # when the progress may be taken
        self._is_closed = False

    def emit(self, kind: EventKind, data: Json) -> None:
        """Add an event, unless closed. Thread-safe. Raises ModelFailed for too many."""
        with self._lock:
            if self._is_closed:
                return
            if kind is EventKind.PROGRESS:
                self._progress = data
            elif self._untaken > _MOST_UNTAKEN:
                raise ModelFailed("The model hands out its output faster than it is taken.")
            else:
                self._outputs.append(data)
                self._untaken += len(data)
        if not self._changed.is_set():
            self._loop.call_soon_threadsafe(self._changed.set)

    def close(self) -> None:
        """Add nothing more."""
        self._is_closed = True
        self._changed.set()

    async def take(self, within: float = math.inf) -> Events:
        """The next events. None after so many seconds, or if it is closed and all were taken."""
        until = self._loop.time() + within
        while not (events := self._ready()) and not self._is_closed and self._loop.time() < until:
            next_look = until if self._progress is None else min(until, self._due)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._changed.wait()
            self._changed.clear()
        return events

    def _ready(self) -> Events:
        events, size = Events(), 0
        with self._lock:
            while self._outputs and len(events) < _AT_ONCE and size <= _BYTES_AT_ONCE:
                events.append((EventKind.OUTPUT, self._outputs.popleft()))
                size += len(events[-1][1])
            self._untaken -= size
            is_due = self._is_closed or self._loop.time() >= self._due
            if self._progress is not None and is_due:
                events.append((EventKind.PROGRESS, self._progress))
                self._progress, self._due = None, self._loop.time() + _INTERVAL
        return events
