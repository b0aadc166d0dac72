"""What a run says, on its way to the store."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable

from predictor.errors import ModelFailed
from predictor.prediction import EventKind, Json

#: Seconds between two progress events that leave the worker.
_PACE = 0.1

#: Outputs that are sent in one call, and bytes of them beyond the first: the store does nothing
#: else meanwhile.
_AT_ONCE, _BYTES_AT_ONCE = 1000, 8 * 2**20

#: Bytes that wait to be sent, above which a model has said too much too fast.
_MOST_UNSENT = 64 * 2**20

Said = list[tuple[EventKind, Json]]


class Feed:
    """Sends what is said from any thread: outputs at once and in order, progress at its pace.

    Of a progress that is overtaken by the next only the next is sent; the last one always is.
    """

    def __init__(self, emit: Callable[[int, Said], Awaitable[None]]) -> None:
        """`emit` is given the number of the first event, from 1, and the events."""
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._outputs: deque[Json] = deque()
        self._unsent = 0
        self._progress: Json | None = None
        self._is_awake = False
        self._is_over = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._due = 0.0
        self._sent = 0

    def say(self, kind: EventKind, data: Json) -> None:
        """Take an event along; ignored when the run is over. Raises ModelFailed for too many."""
        with self._lock:
            if self._is_over.is_set():
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

    async def end(self) -> None:
        """Take no more; when this returns, all that was said has been sent."""
        self._is_over.set()
        if self._sending:
            await self._sending
        await self._send()

    def _wake(self) -> None:
        if not self._is_over.is_set():
            self._sending = self._loop.create_task(self._send())

    async def _send(self) -> None:
        """Until there is nothing left to send."""
        while (said := self._take()) is not None:
            if said:
                await self._emit(self._sent + 1, said)
                self._sent += len(said)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_over.wait(), self._due - self._loop.time())

    def _take(self) -> Said | None:
        """What may be sent now; None if there is nothing to send, now or later."""
        now = self._loop.time()
        with self._lock:
            said: Said = []
            size = 0
            while self._outputs and len(said) < _AT_ONCE and size <= _BYTES_AT_ONCE:
                said.append((EventKind.OUTPUT, self._outputs.popleft()))
                size += len(said[-1][1])
            self._unsent -= size
            if self._progress is not None and (now >= self._due or self._is_over.is_set()):
                said.append((EventKind.PROGRESS, self._progress))
                self._progress, self._due = None, now + _PACE
            self._is_awake = bool(said) or self._progress is not None
            return said if self._is_awake else None
