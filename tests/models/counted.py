"""Ends as the first word of its input says."""

import asyncio

from predictor import InvalidInput


async def predict(text: str) -> str:
    kind = text.split(maxsplit=1)[0]
    await asyncio.sleep(60 if kind in {"sleep", "cancel"} else 0.002)
    if kind == "refuse":
        raise InvalidInput("It refuses this.")
    if kind == "raise":
        raise RuntimeError("It fails on this.")
    return text
