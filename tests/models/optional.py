"""Answers with what it was given, without what was left out."""

from typing import Any

from pydantic import BaseModel


class Options(BaseModel):
    count: int
    flag: bool | None = None
    style: str = "plain"
    note: str | None = None
    exact: bool = False


def predict(options: Options) -> dict[str, Any]:
    return options.model_dump(exclude_unset=True)
