"""Answers one kind of value for each input: what a model may return, and what it may not."""

import dataclasses
import datetime
from typing import Any

import pydantic


@dataclasses.dataclass
class Point:
    x: Any
    y: Any


class Part(pydantic.BaseModel):
    x: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def half(self) -> float:
        return float("nan")


class Array:
    def tolist(self) -> list[float]:
        return [1.0, 2.0]


class Scalar:
    """As NumPy has them."""

    def __init__(self, value: float) -> None:
        self._value = value

    def tolist(self) -> float:
        return self._value


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(220):
        deep = [deep]
    return deep


GOOD: dict[str, tuple[Any, Any]] = {
    "text": ("ü\u0000\U0001f600", "ü\u0000\U0001f600"),
    "number": (1.5, 1.5),
    "nothing": (None, None),
    "nested": ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    "dataclass": (Point(1, 2), {"x": 1, "y": 2}),
    "date": (datetime.date(2026, 1, 2), "2026-01-02"),
    "array": (Array(), [1.0, 2.0]),
    "numbers": (tuple(range(2500)), list(range(2500))),
    "many": ([[str(n), {"n": n}] for n in range(100)], [[str(n), {"n": n}] for n in range(100)]),
    "keys": (
        {1: {None: ["x"] * 40}, "\n": {}, 1.5: ()},
        {"1": {"None": ["x"] * 40}, "\n": {}, "1.5": []},
    ),
    "sets": (
        {"a": {1}, "b": Point(1, Point([], {}))},
        {"a": [1], "b": {"x": 1, "y": {"x": [], "y": {}}}},
    ),
    "bytes": (b"\xff\xfe", "//4="),
    "large": ("x" * 3_000_000, "x" * 3_000_000),
}
BAD: dict[str, Any] = {
    "nan": float("nan"),
    "infinity": {"a": [float("inf")]},
    "object": object(),
    "bad repr": BadRepr(),
    "bytes within": {"a": [b"x"]},
    "surrogate": "\ud800",
    "cycle": _cycle(),
    "object in a list": [*range(2000), object()],
    "key": {object(): 1},
    "deep": _deep(),
    "long number": 10**5000,
}


async def predict(text: str) -> Any:
    return GOOD[text][0] if text in GOOD else BAD[text]


def predict_in_thread(text: str) -> Any:
    return GOOD[text][0] if text in GOOD else BAD[text]
