"""The limit of concurrent sync predictions in this process."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from predictor.errors import Overloaded

_WAIT = 1.0  # seconds until a request is refused


class Slots:
    """At most `count()` at once; an abandoned call that still runs fills a slot, too."""

    def __init__(self, count: Callable[[], int], abandoned: Callable[[], int]) -> None:
        self._count, self._abandoned, self._taken = count, abandoned, 0
        self._freed = asyncio.Event()
        self._average = 1.0  # seconds that a prediction takes: a moving average

    async def take(self) -> None:
        """Take a slot, to be given back. Raises Overloaded if none is freed within a second."""
        deadline = time.monotonic() + _WAIT
        while self._taken + self._abandoned() >= (count := self._count()):
            left = deadline - time.monotonic()
            if left <= 0:
                taken = "The only slot is" if count == 1 else f"All {count} slots are"
                message = f"{taken} taken; try again later, or with Async-Mode: true."
                raise Overloaded(message, retry_after=self._average / max(1, count))
            # An abandoned call does not notify, so poll.
            pause = min(left, _WAIT / 20) if self._abandoned() else left
            with suppress(TimeoutError):
                self._freed.clear()
                async with asyncio.timeout(pause):
                    await self._freed.wait()
        self._taken += 1

    def give_back(self, seconds: float) -> None:
        """`seconds`: how long the slot was taken."""
        self._taken -= 1
        self._average += 0.2 * (seconds - self._average)
        self._freed.set()
