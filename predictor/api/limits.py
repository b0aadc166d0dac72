"""Limits of one process: bodies, slots, quotas. Those of async predictions: submit.lua."""

import asyncio
import math
import time
from collections import defaultdict

from predictor import errors
from predictor.config import Config
from predictor.model.model import Model
from predictor.process import is_set_within
from predictor.store.predictions import Predictions

_BODIES = 16
_WAIT = 1.0  # seconds for a slot until a request is refused
_BLOCKS, _KEEP = 20, 1.0  # in which the tokens of a second are taken, and seconds they are kept
_PATIENCE, _AWAY = 0.3, 5.0  # seconds for the store to give some; else, without a limit of rate


class Bodies:
    """Bytes of the bodies that are being received, at most those of _BODIES of the largest."""

    def __init__(self, largest: int) -> None:
        self._left = _BODIES * largest

    def begin(self, size: int) -> None:
        """Count bytes until `end`. Raises Overloaded."""
        if size > self._left:
            raise errors.Overloaded("Too many large bodies arrive at once; send it again.")
        self._left -= size

    def end(self, size: int) -> None:
        self._left += size


class Limits:
    """What sync predictions take in this process: a slot, and of the quota of their name.

    An abandoned call that still runs fills a slot, too. Tokens come from the store, in blocks.
    """

    def __init__(self, config: Config, model: Model, store: Predictions) -> None:
        self._config, self._model, self._store = config, model, store
        self._block = max(1, min(config.burst, int(config.rate / _BLOCKS)))
        self._names: defaultdict[str, _Name] = defaultdict(_Name)
        self._taken, self._freed = 0, asyncio.Event()
        self._average = 1.0  # seconds that a prediction takes: a moving average

    def running(self, owner: str) -> int:
        """How many sync predictions a name runs in this process."""
        return self._names[owner].running

    async def take(self, owner: str) -> None:
        """Take what a prediction needs, until `give_back`. Raises Overloaded, TooManyRequests."""
        if not self._model.is_ready:
            message = "The model is still loading; try again later, or with Async-Mode: true."
            raise errors.Overloaded(message, reason="loading")
        name = self._names[owner]
        if 0 < self._config.open <= name.running:
            raise errors.TooManyRequests(reason="open")
        name.running += 1
        try:
            if self._config.rate and not name.take():
                await self._refill(owner, name)
            await self._take_slot()
        except BaseException:
            name.running -= 1
            raise

    def give_back(self, owner: str, seconds: float) -> None:
        """`seconds`: how long the slot was taken."""
        self._names[owner].running -= 1
        self._taken -= 1
        self._average += 0.2 * (seconds - self._average)
        self._freed.set()

    async def _take_slot(self) -> None:
        """Raises Overloaded if none is freed within a second."""
        model, deadline = self._model, time.monotonic() + _WAIT
        while self._taken + model.abandoned >= (count := model.slots(self._config.slots)):
            left = deadline - time.monotonic()
            if left <= 0:
                taken = "The only slot is" if count == 1 else f"All {count} slots are"
                message = f"{taken} taken; try again later, or with Async-Mode: true."
                raise errors.Overloaded(message, retry_after=self._average / max(1, count))
            # An abandoned call does not notify, so poll.
            pause = min(left, _WAIT / 20) if model.abandoned else left
            self._freed.clear()
            await is_set_within(pause, self._freed)
        self._taken += 1

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
