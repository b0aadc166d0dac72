"""Retries calls to the store until it replies, for as long as that takes."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from ssl import SSLCertVerificationError
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from predictor.errors import StoreUnavailable
from predictor.store.connection import address
from predictor.store.scripts import AsyncScripts

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Call = Callable[..., Awaitable[T]]
#: What a call to the store can raise. A refusal (out of memory, read-only, disk full, no
#: permission) is retried like an outage: an operator will fix it.
STORE_ERRORS = (RedisError, OSError)
_PAUSE = (0.05, 1.0)  # seconds between two attempts: the first, and the longest
_LOG_EVERY = 10.0  # seconds between two lines in the log about the same outage
#: A value of more bytes may be larger than the store takes: attempts to write it.
_LARGE, _MOST_FAILURES = 2**19, 3

#: What errors mean, by the server's word or the class that redis-py makes of it.
_MEANINGS = {
    "MISCONF": "it cannot write to its disk",
    "DB": "it has no database with the number in its URL",
    "OutOfMemoryError": "its memory is full",
    "ReadOnlyError": "it takes no writes",
    "BusyLoadingError": "it is loading its data",
    "TimeoutError": "it did not answer in time",
}


class StoreRetry:
    """The retries of one process: all its calls to the store share them. Logs each outage."""

    def __init__(self, redis: Redis) -> None:
        self.redis, self.scripts = redis, AsyncScripts(redis)
        self.last_failure = time.monotonic()  # or, before the first one, when this began
        self._since: float | None = None
        self._next_line, self._is_logged = 0.0, False
        self._pause = _PAUSE[0]
        self._deadline = math.inf

    def failed(self, error: Exception) -> None:
        now = self.last_failure = time.monotonic()
        self._since = self._since or now
        if now >= self._next_line:
            where = address(self.redis.connection_pool)
            logger.warning("store %s unavailable (%s)", where, describe(error))
            self._next_line, self._is_logged = now + _LOG_EVERY, True

    def recovered(self) -> None:
        if self._since is not None:
            if self._is_logged:  # a store that is full fails writes between reads
                logger.warning("store available again after %.1f s", time.monotonic() - self._since)
            self._since, self._pause, self._is_logged = None, _PAUSE[0], False

    def give_up_after(self, seconds: float) -> None:
        """Retry for no longer than that, from now on: the process is to end."""
        self._deadline = time.monotonic() + seconds

    def observed(self, seconds: float, usual: float) -> None:
        """A call took so long; longer than `usual` is a failure, too (a frozen store)."""
        if seconds > usual:
            self.last_failure = time.monotonic()

    async def wait(self, error: BaseException) -> None:
        """Return when it is time to retry. Raises StoreUnavailable past the deadline."""
        if not isinstance(error, STORE_ERRORS):
            raise error
        if "WRONGTYPE" in str(error):
            with contextlib.suppress(*STORE_ERRORS):
                removed = await self.scripts.run("drop_wrong_types")
                logger.error("removed keys that were overwritten with another type: %s", removed)
        self.failed(error)
        now = self.last_failure
        if now >= self._deadline:
            raise StoreUnavailable from error
        try:
            await asyncio.sleep(min(self._pause, self._deadline - now))
        except asyncio.CancelledError:
            self._deadline = now  # only a process that is to end cancels a wait
            raise
        self._pause = min(2 * self._pause, _PAUSE[1])

    async def until_answered(self, call: _Call[T], *args: Any, size: int = 0) -> T:
        """What `call(*args)`, which writes `size` bytes, returns, whenever that is.

        Raises StoreUnavailable past the deadline, and ValueRefused if the store, which replies to
        other calls, breaks off each time.
        """
        failures = 0
        while True:
            try:
                reply = await call(*args)
            except STORE_ERRORS as error:
                await self.wait(error)
                breaks_off = isinstance(error, RedisConnectionError) or "Protocol" in str(error)
                failures += size > _LARGE and breaks_off
                if failures == _MOST_FAILURES:
                    text = f"The store does not take a value of {size} bytes; return less, or raise"
                    raise ValueRefused(f"{text} its limit (proto-max-bulk-len).") from error
                if failures:
                    await self.until_answered(self.redis.ping)
            else:
                self.recovered()
                return reply

    async def until_end(self, call: _Call[T], *args: Any, size: int = 0) -> T | None:
        """As `until_answered`, but None past the deadline."""
        with contextlib.suppress(StoreUnavailable):
            return await self.until_answered(call, *args, size=size)
        return None


class ValueRefused(Exception):
    """The store does not take a value."""


def describe(error: Exception) -> str:
    """The kind of an error. Never its text: that may hold the command, and somebody's input."""
    # redis-py wraps what went wrong while it connects
    error = next((cause for cause in error.args if isinstance(cause, Exception)), error)
    if isinstance(error.__context__, SSLCertVerificationError):
        return f"its certificate is not accepted: {error.__context__.verify_message.rstrip('.')}"
    word = str(error).split(" ", 1)[0].strip(":-")
    kind = word if word.isupper() and word.isalpha() else type(error).__name__
    return f"{kind}: {_MEANINGS[kind]}" if kind in _MEANINGS else kind
