"""How the worker meets trouble with the store: it waits, for as long as that takes."""

import asyncio
import logging
import math
import time

from redis.exceptions import RedisError

from predictor.errors import StoreUnavailable

logger = logging.getLogger(__name__)

#: What a call to the store can raise. A refusal (out of memory, read-only, disk full, no
#: permission) is trouble like an outage: somebody will mend it.
TROUBLE = (RedisError, OSError)

#: Seconds between two attempts: the first, and the longest.
_PAUSE = (0.05, 1.0)

#: Seconds between two lines in the log about the same trouble.
_LOG_EVERY = 10.0

#: What errors mean, by the server's word or the class that redis-py makes of it.
_MEANINGS = {
    "MISCONF": "it cannot write to its disk",
    "OutOfMemoryError": "its memory is full",
    "ReadOnlyError": "it takes no writes",
    "BusyLoadingError": "it is loading its data",
    "TimeoutError": "it did not answer in time",
}


class Patience:
    """One worker's patience; all its calls share it."""

    def __init__(self) -> None:
        #: when the store last gave trouble, by `time.monotonic`
        self.last_trouble = -math.inf
        self._since: float | None = None
        self._next_line = 0.0
        self._pause = _PAUSE[0]
        self._deadline = math.inf

    def end_in(self, seconds: float) -> None:
        """Wait no longer than that, from now on: the worker is leaving."""
        self._deadline = time.monotonic() + seconds

    def noticed(self, seconds: float, usual: float) -> None:
        """A call took that long. Much longer than usual is trouble, too: the store was frozen."""
        if seconds > usual:
            self.last_trouble = time.monotonic()

    def over(self) -> None:
        """A call succeeded."""
        if self._since is not None:
            logger.warning("the store is back after %.1f s", time.monotonic() - self._since)
            self._since = None
            self._pause = _PAUSE[0]

    async def wait(self, error: Exception) -> None:
        """Return when it is time for another attempt. Raises StoreUnavailable past the deadline."""
        now = self.last_trouble = time.monotonic()
        if self._since is None:
            self._since, self._next_line = now, now
        if now >= self._next_line:
            logger.warning("trouble with the store: %s; trying on", describe(error))
            self._next_line = now + _LOG_EVERY
        if now >= self._deadline:
            raise StoreUnavailable from error
        try:
            await asyncio.sleep(min(self._pause, max(0.0, self._deadline - now)))
        except asyncio.CancelledError:
            self._deadline = now  # only a worker that is leaving cancels a wait
            raise
        self._pause = min(2 * self._pause, _PAUSE[1])


def describe(error: Exception) -> str:
    """What kind of trouble. Never its text: that may hold the command, and somebody's input."""
    # redis-py wraps what went wrong while it connects
    error = next((cause for cause in error.args if isinstance(cause, Exception)), error)
    word = str(error).split(" ", 1)[0].strip(":-")
    kind = word if word.isupper() and word.isalpha() else type(error).__name__
    return f"{kind}: {_MEANINGS[kind]}" if kind in _MEANINGS else kind
