"""Takes as many seconds as its input says, and records its start in the file it may name.

Input: `seconds` or `seconds path`.
"""

import asyncio
import time
from pathlib import Path


def _begin(text: str) -> float:
    seconds, _, path = text.partition(" ")
    if path:
        with Path(path).open("a") as starts:
            starts.write(f"{time.time()}\n")
    return float(seconds)


async def predict(text: str) -> str:
    await asyncio.sleep(_begin(text))
    return text


def predict_in_thread(text: str) -> str:
    time.sleep(_begin(text))
    return text


async def block(text: str) -> str:
    """Holds the event loop meanwhile, as careless models do."""
    time.sleep(_begin(text))  # noqa: ASYNC251
    return text


async def stubborn(text: str) -> str:
    """Does not end when it is canceled."""
    deadline = time.monotonic() + _begin(text)
    while time.monotonic() < deadline:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue
    return text


async def now(text: str) -> str:
    """The time at which it ended."""
    await asyncio.sleep(_begin(text))
    return str(time.time())
