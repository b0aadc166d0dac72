"""Models that are written as few would, and fail as some do."""

import functools
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Any, Literal

from pydantic import AnyUrl, BaseModel, field_serializer, field_validator, model_serializer

from predictor import InvalidInput


class Untellable(InvalidInput):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Checked(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def check(cls, value: int) -> int:
        """Fails for 0, ends for 1, fails on a worker alone for 2, refuses 9."""
        if value == 9:
            raise InvalidInput("Not 9.")
        if value == 1:
            raise SystemExit("It ends.")
        if value == 2 and any("arq" in word for word in sys.argv):
            raise KeyError("missing")
        return value or 1 // value


def checked(value: Checked) -> int:
    return value.a


class Score(BaseModel):
    score: float | None
    more: Any = None


class Year(BaseModel):
    at: float

    @field_serializer("at")
    def write(self, at: float):  # type: ignore[no-untyped-def]
        return f"{at:.0f}"


class Where(BaseModel):
    url: AnyUrl
    address: IPv4Address


class Whole(BaseModel):
    at: int

    @model_serializer
    def write(self):  # type: ignore[no-untyped-def]
        return self.at


def score(text: str) -> Score:
    numbers = {"nan": math.nan, "inf": math.inf}
    return Score(score=numbers.get(text), more=[{"a": -math.inf}] if text == "more" else None)


def year(text: str) -> Year:
    return Year(at=float(text))


class Letter(StrEnum):
    A = "a"


def letters(text: str) -> Iterator[str]:
    yield from (Letter.A, text)


def choices(text: str) -> Iterator[Literal["a", "b"]]:
    yield from ("a", "b", *text)


def optional(text: str) -> Iterator[str | None]:
    yield text


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return wrapper


@_plain
async def decorated(text: str) -> AsyncIterator[str]:
    yield text
    yield "!"


class Property:
    @property
    def predict(self) -> str:
        return "A model whose author meant a method."
