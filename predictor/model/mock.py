"""The default model: it waits, then returns a random number."""

import asyncio
import functools
import random

from predictor.config import Config

_config = functools.cache(Config)


async def predict(text: str) -> str:  # noqa: ARG001 (a model is given its input)
    """Wait PREDICTOR_MOCK_DELAY seconds, then return an integer from 1000 to 20000 as a string."""
    await asyncio.sleep(_config().mock_delay)
    return str(random.randint(1000, 20000))  # noqa: S311 (no secret)
