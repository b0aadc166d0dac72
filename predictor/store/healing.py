"""Calls that wait out trouble with the store, and mend what somebody else did to its keys."""

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from predictor.store import keys
from predictor.store.patience import TROUBLE, Patience
from predictor.store.scripts import script

logger = logging.getLogger(__name__)


async def patiently(redis: Redis, patience: Patience, call: Callable[[], Awaitable[Any]]) -> Any:
    """What `call` answers, whenever that is. Raises StoreUnavailable when `patience` ends."""
    while True:
        try:
            answer = await call()
        except TROUBLE as error:
            await heal(redis, error)
            await patience.wait(error)
        else:
            patience.over()
            return answer


async def heal(redis: Redis, error: Exception) -> None:
    """Remove keys that somebody overwrote with another type, if `error` says there are some."""
    if "WRONGTYPE" not in str(error):
        return
    with contextlib.suppress(*TROUBLE):
        run = redis.register_script(script("heal"))
        removed = await run(args=[part for pair in keys.TYPES.items() for part in pair])
        logger.error("removed keys that somebody had overwritten: %s", removed)
