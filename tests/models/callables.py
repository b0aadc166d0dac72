"""Callables of several kinds."""

import functools
from collections.abc import Awaitable
from typing import ClassVar


class Shout:
    async def __call__(self, text: str) -> str:
        return text.upper()


class Namespace:
    inner: ClassVar[Shout] = Shout()


def plain(text: str, suffix: str = "!") -> str:
    return text + suffix


async def _later(text: str) -> str:
    return text[::-1]


def returns_awaitable(text: str) -> Awaitable[str]:
    return _later(text)


shout = Shout()
partial = functools.partial(plain, suffix="?")
number = 3


def needs_two(text: str, other) -> str:  # type: ignore[no-untyped-def]
    return text + str(other)


def anything(value):  # type: ignore[no-untyped-def]
    return value
