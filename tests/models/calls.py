"""Tells what a prediction costs the process that runs it, in a figure that no noise reaches."""

import sys
from collections import Counter
from types import FrameType
from typing import Any

_seen: Counter[str] = Counter()


def _count(_frame: FrameType, event: str, _argument: Any) -> None:
    _seen[event] += 1


async def predict(text: str) -> int:
    """How many functions its thread has called since the last prediction."""
    sys.setprofile(_count)
    calls = _seen["call"] + _seen["c_call"]
    _seen.clear()
    return calls
