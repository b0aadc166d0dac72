"""Models with types that are not read as they are written, or that contain themselves."""

from decimal import Decimal

from pydantic import BaseModel, Field, Json, computed_field


class Box(BaseModel):
    w: int
    h: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.w * self.h


class Named(BaseModel):
    name: str = Field(validation_alias="Name", serialization_alias="called")


class Node(BaseModel):
    name: str
    next: "Node | None" = None


def price(price: Decimal) -> Decimal:
    return price


def node(node: Node) -> Node:
    return node


def box(box: Box) -> Box:
    return box


def named(named: Named) -> Named:
    return named


def numbers(text: Json[list[int]]) -> int:
    return sum(text)
