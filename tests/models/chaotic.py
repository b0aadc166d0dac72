"""Takes a moment; answers differently each time it runs, so that a second result would show.

The first word of the input says what it does: `refuse`, `fork`, `long`, or anything else.
"""

import asyncio
import uuid

from predictor import InvalidInput
from tests.models.forks import WAYS

#: Seconds that a long one takes: longer than a lease, and than a drain.
LONG = 3


async def predict(text: str) -> str:
    kind, number = text.split(" ")
    if kind == "fork":
        run, result = list(WAYS.values())[int(number) % len(WAYS)]
        assert run() == result
    else:
        await asyncio.sleep(LONG if kind == "long" else 0.05)
    if kind == "refuse":
        raise InvalidInput("as was asked")
    return uuid.uuid4().hex
