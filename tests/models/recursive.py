"""Types that contain themselves in unions whose choices look alike: no level tells which it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, OnErrorOmit, RootModel, model_validator
from typing_extensions import TypeAliasType, TypedDict


@dataclass
class Sum:
    left: "Sum | Product | int"


@dataclass
class Product:
    left: "Sum | Product | int"


class Leaf(BaseModel):
    parts: "Sequence[Leaf | Branch]" = ()


class Branch(BaseModel):
    parts: "Sequence[Leaf | Branch]" = ()


class Omitting(BaseModel):
    parts: "list[OnErrorOmit[Omitting | Leaf]]" = []


class Wrapping(BaseModel):
    """Its validator makes an object of what is a list."""

    parts: "list[Wrapping | list[Wrapping]]" = []

    @model_validator(mode="before")
    @classmethod
    def _wrapped(cls, value: Any) -> Any:
        return {"parts": value} if isinstance(value, list) else value


class Endless(RootModel["Endless | None"]):
    """Is nothing but itself."""


class Pair(NamedTuple):
    first: "Pair | Other | int"


class Other(NamedTuple):
    first: "Pair | Other | int"


class Dict(TypedDict):
    left: "Dict | OtherDict | int"


class OtherDict(TypedDict):
    left: "Dict | OtherDict | int"


# In text: mypy does not know aliases that contain themselves.
Lists = TypeAliasType("Lists", 'list["Lists"] | tuple["Lists", ...] | int')
#: As recursive, but what a value is shows at once.
JsonLike = TypeAliasType("JsonLike", 'dict[str, "JsonLike"] | list["JsonLike"] | int')


def predict(tree: Sum | Product) -> str:
    return type(tree).__name__
