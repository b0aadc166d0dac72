"""Raises what its input names."""

import asyncio

from predictor import InvalidInput
from tests.models.odd import Untellable


class OwnError(BaseException):
    """A model's author may derive from anything."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)


RAISES: dict[str, BaseException] = {
    "exception": RuntimeError("the model's secret"),
    "own class": OwnError("the model's secret"),
    "system exit": SystemExit(3),
    "keyboard interrupt": KeyboardInterrupt(),
    "generator exit": GeneratorExit(),
    "stop iteration": StopIteration(),
    "memory": MemoryError(),
    "recursion": RecursionError(),
    "timeout": TimeoutError(),
    "canceled": asyncio.CancelledError(),
    "untellable": Untellable(),
    "refused": InvalidInput("The text must not be 'refused'."),
}


async def predict(text: str) -> str:
    if text in RAISES:
        raise RAISES[text]
    return text


def predict_in_thread(text: str) -> str:
    if text in RAISES:
        raise RAISES[text]
    return text
