"""Answers, or hands out, what never ends. Its input names it."""

import itertools
import time
from collections.abc import Callable, Iterator

from predictor import InvalidInput, Run
from tests.models.results import Point


def _slow() -> Iterator[int]:
    while True:
        time.sleep(0.02)
        yield 1


def _refuse() -> Iterator[int]:
    yield 1
    raise InvalidInput("Not \udc80 this.")


#: Each is more than any limit.
FAST: dict[str, Callable[[], object]] = {
    "texts": lambda: itertools.repeat("x" * 5000),
    "numbers": lambda: itertools.repeat([1.5] * 1000),
    "nested": lambda: {"a": [1, Point(1, itertools.repeat("x" * 5000))]},
    "within": lambda: itertools.repeat(itertools.repeat("x" * 5000)),
    "shared": lambda: [["x" * 9999] * 1000] * 1000,
}


def predict_in_thread(text: str, run: Run) -> object:
    if text.startswith("output "):
        run.output("x" * int(text.split()[1]))
        return "done"
    if text == "slow":
        return _slow()
    if text == "refuse":
        return _refuse()
    if text == "long refusal":
        raise InvalidInput("\ud800" + "x" * 3_000_000)
    return FAST[text]() if text in FAST else "x" * int(text)


async def predict(text: str, run: Run) -> object:
    return predict_in_thread(text, run)
