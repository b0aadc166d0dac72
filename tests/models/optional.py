"""Answers with what it was given, without what was left out."""

from typing import Any, Literal

from pydantic import BaseModel


class Crop(BaseModel):
    left: int = 0
    width: int = 100


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Options(BaseModel):
    count: int
    flag: bool | None = None
    style: str = "plain"
    note: str | None = None
    exact: bool = False
    crop: Crop | None = None
    shape: Circle | Square | None = None
    tags: list[int | str] = [1, "a"]


def predict(options: Options) -> dict[str, Any]:
    return options.model_dump(exclude_unset=True)
