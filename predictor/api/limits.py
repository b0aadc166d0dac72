"""Limits of one process: bodies, slots, quotas. Those of async predictions: submit.lua."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

from predictor import errors
from predictor.config import Config
from predictor.process import is_set_within
from predictor.store.predictions import Predictions

_WAIT = 1.0  # seconds for a slot until a request is refused
_BLOCKS, _KEEP = 20, 1.0  # in which the tokens of a second are taken, and seconds they are kept
_PATIENCE, _AWAY = 0.3, 5.0  # seconds for the store to give some; else, without a limit of rate


class Bodies:
    """Bytes of the bodies that are being received, at most so many at once."""

    def __init__(self, most: int) -> None:
        self._left = most

    def begin(self, size: int) -> None:
        """Count bytes until `end`. Raises Overloaded."""
        if size > self._left:
            raise errors.Overloaded("Too many large bodies arrive at once; send it again.")
        self._left -= size

    def end(self, size: int) -> None:
        self._left += size


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
                raise errors.Overloaded(message, retry_after=self._average / max(1, count))
            # An abandoned call does not notify, so poll.
            pause = min(left, _WAIT / 20) if self._abandoned() else left
            self._freed.clear()
            await is_set_within(pause, self._freed)
        self._taken += 1

    def give_back(self, seconds: float) -> None:
        """`seconds`: how long the slot was taken."""
        self._taken -= 1
        self._average += 0.2 * (seconds - self._average)
        self._freed.set()


class Quotas:
    """What each name may run in this process, which takes tokens from the store in blocks."""

    def __init__(self, config: Config, store: Predictions) -> None:
        self._rate, self._open, self._store = config.rate, config.open, store
        self._block = max(1, min(config.burst, int(config.rate / _BLOCKS)))
        self._names: defaultdict[str, _Name] = defaultdict(_Name)

    def running(self, owner: str) -> int:
        """How many sync predictions a name runs in this process."""
        return self._names[owner].running

    def begin(self, owner: str) -> Awaitable[None] | None:
        """Count a sync prediction, until `end`.

        Returns what has to be awaited before it runs, if anything. Both raise TooManyRequests.
        """
        name = self._names[owner]
        if 0 < self._open <= name.running:
            raise errors.TooManyRequests(reason="open")
        name.running += 1
        return self._refill(owner, name) if self._rate and not name.take() else None

    def end(self, owner: str) -> None:
        self._names[owner].running -= 1

    async def _refill(self, owner: str, name: "_Name") -> None:
        """Take a token, from the store if need be. Without the store there is no limit of rate."""
        async with name.lock:  # others may find what the first one brings
            while not name.take():
                if (wait := name.refused_until - time.monotonic()) > 0:
                    raise errors.TooManyRequests(retry_after=wait, reason="rate")
                try:
                    async with asyncio.timeout(_PATIENCE):
                        name.tokens, wait = await self._store.take(owner, self._block)
                        name.kept_until = time.monotonic() + _KEEP
                        name.refused_until = 0 if name.tokens else time.monotonic() + wait
                except (errors.StoreUnavailable, TimeoutError):
                    name.tokens, name.kept_until = math.inf, time.monotonic() + _AWAY


class _Name:
    def __init__(self) -> None:
        self.running, self.tokens = 0, 0.0
        self.kept_until = self.refused_until = 0.0  # by `time.monotonic`
        self.lock = asyncio.Lock()

    def take(self) -> bool:
        if self.tokens < 1 or time.monotonic() > self.kept_until:
            return False
        self.tokens -= 1
        return True
