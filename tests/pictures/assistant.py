"""The model of the pictures: it takes its time, and hands out its answer word by word."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from pydantic import Field

from predictor import Run

_TEXT = {
    "plain": "The queue is on disk before you get an answer, so what was accepted will run: "
    "after a crash of the worker, of the API, or of the store. ",
    "warm": "Take your time! Whatever you have sent is safe with us, and we will have it ready for "
    "you the moment you come back. ",
    "formal": "We confirm receipt of your request. It has been recorded, it will be processed in "
    "order, and its outcome will be kept for you. ",
}


async def answer(
    prompt: Annotated[str, Field(max_length=2000, examples=["What happens if a worker dies?"])],
    tone: Literal["plain", "warm", "formal"] = "plain",
    words: Annotated[int, Field(ge=1, le=200)] = 40,
    *,
    run: Run,
) -> AsyncIterator[str]:
    """Answers a question, word by word."""
    if not prompt.strip():
        raise ValueError("There is no question.")
    said = (_TEXT[tone] * words).split()[:words]
    for number, word in enumerate(said):
        await asyncio.sleep(0.05)
        run.progress((number + 1) / words, f"{number + 1} of {words} words")
        yield f"{word} "
