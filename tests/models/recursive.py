"""Unions that contain themselves."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType, TypedDict


class Sum(BaseModel):
    left: "Sum | Product | int"


class Product(BaseModel):
    kind: Literal["product"]
    left: "Sum | Product | int"


@dataclass
class Group:
    members: "list[Group | Team | str]"


class Team(TypedDict):
    members: "list[Group | Team | str]"
    boss: str


class Outer(BaseModel):
    inner: "First | Second | None"


class First(BaseModel):
    next: "Middle"


class Second(BaseModel):
    other: int
    next: "Middle"


class Middle(BaseModel):
    outer: "Outer | str"


class Named(BaseModel):
    left: "dict[str, Named | int] | Named | int"


class Yes(BaseModel):
    kind: Literal["yes"]
    why: "Annotated[Yes | No, Field(discriminator='kind')] | Maybe | str"


class No(BaseModel):
    kind: Literal["no"]


class Maybe(BaseModel):
    why: "Annotated[Yes | No, Field(discriminator='kind')] | Maybe | str"


Rows = TypeAliasType("Rows", "list[Rows] | tuple[Rows, ...] | int")
Tables = TypeAliasType("Tables", "dict[str, Tables] | Annotated[dict[str, Tables], Field()] | int")

#: Refused, with what two variants have alike.
ALIKE = [
    (Sum | Product, "have the field 'left'"),
    (Group | Team, "have the field 'members'"),
    (Outer, "have the field 'next'"),
    (Named, "have the field 'left'"),
    (Yes, "have the field 'why'"),
    (Rows, "are of one kind"),
    (Tables, "are of one kind"),
]


Itself = TypeAliasType("Itself", "Itself | int")  # type: ignore[misc]


class And(BaseModel):
    both: "list[And | Or | Not | str]" = Field(alias="and")


class Or(BaseModel):
    any: "list[And | Or | Not | str]" = Field(alias="or")


class Not(BaseModel):
    it: "And | Or | Not | str" = Field(alias="not")


class Folder(BaseModel):
    children: "list[Folder | File]"


class File(BaseModel):
    children: int


class Plus(BaseModel):
    kind: Literal["plus"]
    left: "Annotated[Plus | Minus, Field(discriminator='kind')] | int"


class Minus(BaseModel):
    kind: Literal["minus"]
    left: "Annotated[Plus | Minus, Field(discriminator='kind')] | int"


class Tree(BaseModel):
    left: "Tree | None" = None
    right: "Tree | None" = None


Anything = TypeAliasType("Anything", "dict[str, Anything] | list[Anything] | str")

#: Accepted, with what one level of a value is.
APART = [
    (And | Or | Not | str, '{"and":[%s]}'),
    (And | Or | Not | str, '{"not":%s}'),
    (Folder | File, '{"children":[%s]}'),
    (Plus, '{"kind":"plus","left":%s}'),
    (Tree, '{"left":%s}'),
    (Anything, '{"a":[%s]}'),
]
