"""Takes a moment; answers differently each time it runs, so that a second result would show."""

import asyncio
import uuid

from predictor import InvalidInput


async def predict(text: str) -> str:
    await asyncio.sleep(0.05)
    if text.startswith("refuse"):
        raise InvalidInput("as was asked")
    return uuid.uuid4().hex
