"""Bytes in and out."""

from typing import Annotated

from pydantic import Field


def reverse(content: Annotated[bytes, Field(max_length=1_000_000)] | None = None) -> bytes:
    """An input of b"fail" fails."""
    if content == b"fail":
        raise ValueError
    return (content or b"")[::-1]
