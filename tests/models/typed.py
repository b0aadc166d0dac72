"""Models of every shape, with types."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from predictor import Run


class Item(BaseModel):
    """One line of an order."""

    name: str
    count: int = Field(1, ge=1)


class Order(BaseModel):
    items: list[Item]
    note: str | None = None


class Price(TypedDict):
    total: float
    currency: Literal["EUR", "USD"]


@dataclass
class Point:
    x: float
    y: float = 0.0


def price(order: Order) -> Price:
    """What an order costs.

    Everything costs two.
    """
    return {"total": 2.0 * sum(item.count for item in order.items), "currency": "EUR"}


def several(
    text: str,
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7,
    tags: list[str] = [],  # noqa: B006
) -> list[str]:
    tags.append(f"{text} {temperature}")  # its own copy
    return tags


async def distance(point: Point, run: Run) -> float:
    run.progress(1)
    return float((point.x**2 + point.y**2) ** 0.5)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def reverse(content: bytes) -> bytes:
    return content[::-1]


def liar(text: str) -> Price:
    """Breaks its promise."""
    return {"total": text, "currency": "EUR"}  # type: ignore[typeddict-item]


def words(text: str) -> Iterator[str]:
    """The input, a word at a time; `stop path`: without end, until it is closed."""
    if text.startswith("endless "):
        path = Path(text.removeprefix("endless "))
        try:
            while True:
                time.sleep(0.02)
                yield "word "
        finally:
            path.touch()
    for word in text.split():
        yield f"{word} "


def breaks(text: str) -> Iterator[str]:
    yield text
    time.sleep(0.05)  # so that the piece is sent before the end
    raise RuntimeError("the model's secret")


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Counter:
    """Counts its calls, in each thread."""

    def __init__(self) -> None:
        self._main = threading.current_thread()
        self._local = threading.local()
        self._is_warm = False

    def warm_up(self) -> None:
        self._is_warm = True

    def predict(self, by: int) -> dict[str, int]:
        assert self._is_warm
        self._local.count = getattr(self._local, "count", 0) + by
        return {"count": self._local.count}


class SlowToLoad:
    def __init__(self) -> None:
        time.sleep(1)

    async def predict(self, text: str) -> str:
        return text


class FailsToLoad:
    def __init__(self) -> None:
        time.sleep(0.2)
        raise OSError("no such file: weights.bin")

    def predict(self, text: str) -> str:
        return text
