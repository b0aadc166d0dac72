"""Keys that somebody overwrote with another type are removed, so that the scripts can run again."""

import contextlib
import logging

from redis.asyncio import Redis

from predictor.store import keys
from predictor.store.patience import TROUBLE
from predictor.store.scripts import script

logger = logging.getLogger(__name__)


async def heal(redis: Redis, error: Exception) -> None:
    """Do that if `error` says that there is such a key."""
    if "WRONGTYPE" not in str(error):
        return
    with contextlib.suppress(*TROUBLE):
        run = redis.register_script(script("heal"))
        removed = await run(args=[part for pair in keys.TYPES.items() for part in pair])
        logger.error("removed keys that somebody had overwritten: %s", removed)
