"""Writes a model's result as JSON, part by part, so that it can be bounded and canceled."""

import base64
import contextlib
import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from predictor.errors import Canceled, ModelFailed
from predictor.prediction import Json

_BYTES = (bytes, bytearray, memoryview)
_NUMBERS = frozenset({int, float, bool, type(None)})
_BEYOND_JSON = {str: "text with half of a surrogate pair", int: "too long a number"}
_STEP = 1000  # numbers that are written in one call, during which no other thread runs


def encode_json(value: Any, limit: int, is_canceled: Callable[[], bool] = bool) -> Json:
    """`value` as JSON: everything that pydantic can serialize, and arrays. Bytes are base64.

    Raises ModelFailed if it has more than `limit` bytes or is not JSON (NaN, infinity, nested too
    deep, too long a number), Canceled when `is_canceled` returns true, and what an iterator raises.
    """
    if isinstance(value, _BYTES):
        value = base64.b64encode(value).decode()
    written = bytearray()
    try:
        for piece in _pieces(value, 0):
            written += piece
            if len(written) > limit:
                raise too_large(limit)
            if is_canceled():
                raise Canceled
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        reason = str(error).removeprefix("Error serializing to JSON: ")
        if reason.startswith("expected value"):  # from_json's
            reason = "NaN and infinity are not JSON"
        with contextlib.suppress(Exception):  # of the model's own types
            reason = _flaw(value, "result") or reason
        raise ModelFailed(f"The model's result cannot be written as JSON: {reason}") from error
    return Json(bytes(written))


def too_large(limit: int) -> ModelFailed:
    return ModelFailed(f"The model's result is larger than {limit} bytes (PREDICTOR_MAX_RESULT).")


def is_small(value: Any, depth: int = 2) -> bool:
    """Whether writing `value` takes microseconds and runs no code of the model."""
    kind = type(value)
    if kind is str:
        return len(value) <= 10_000
    if kind is int:
        return abs(value) < 2**63  # type: ignore[no-any-return]
    if kind in {list, tuple, dict}:
        parts = itertools.chain(value, value.values()) if kind is dict else value
        return depth > 0 and len(value) <= 30 and all(is_small(part, depth - 1) for part in parts)
    return kind in _NUMBERS


def _pieces(value: Any, depth: int) -> Iterator[bytes]:
    parts = None if is_small(value) else _parts(value)
    separator = b"["
    if parts is None:
        yield _piece(value, depth)
    elif isinstance(parts, dict):
        separator = b"{"
        for key in parts:
            yield separator + _piece({key: None}, depth)[1:-5]
            yield from _pieces(parts[key], depth + 1)
            separator = b","
        yield b"}" if separator == b"," else b"{}"
    else:
        remaining, size = iter(parts), 1 if hasattr(parts, "__next__") else _STEP
        while step := list(itertools.islice(remaining, size)):
            if _NUMBERS.issuperset(map(type, step)):
                yield separator + _piece(step, depth)[1:-1]
            else:
                for part in step:
                    yield separator
                    yield from _pieces(part, depth + 1)
                    separator = b","
            separator = b","
        yield b"]" if separator == b"," else b"[]"


def _flaw(value: Any, place: str) -> str | None:
    """Where the first part of `value` is that is not JSON, and what it is."""
    if serializer := getattr(type(value), "__pydantic_serializer__", None):
        value = serializer.to_python(value, warnings=False)  # with computed and extra fields
    parts = _parts(value)
    if parts is None and callable(tolist := getattr(value, "tolist", None)):
        value = tolist()
    if isinstance(parts, dict):
        flaws = (_flaw(part, f"{place}.{key}") for key, part in parts.items())
    elif parts is not None:
        flaws = (_flaw(part, f"{place}[{index}]") for index, part in enumerate(parts))
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{place} is {'NaN' if math.isnan(value) else 'infinite'}, which is not JSON"
    else:
        try:
            _piece(value, 0)
        except (PydanticSerializationError, ValueError):
            what = _BEYOND_JSON.get(type(value)) or f"of type {type(value).__name__}"
            return f"{place} is {what}, which is not JSON"
        return None
    return next(filter(None, flaws), None)


def _parts(value: Any) -> Any:
    """The dict or iterable of the parts of `value`; None if pydantic writes it as a whole."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "__pydantic_serializer__"):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(tolist := getattr(value, "tolist", None)):
        value = tolist()
    many = (dict, list, tuple, set, frozenset, deque)
    return value if isinstance(value, many) or hasattr(type(value), "__next__") else None


def _piece(value: Any, depth: int) -> bytes:
    if isinstance(value, _BYTES):
        raise ValueError("bytes are JSON only as base64")  # noqa: TRY004
    piece = to_json(value, fallback=_plain)
    if type(value) is not str:
        serializer = getattr(type(value), "__pydantic_serializer__", None)
        if serializer and b"null" in piece:  # which it may have written for NaN or infinity
            value = serializer.to_python(value)
            from_json(to_json(value, bytes_mode="base64", fallback=_parts), allow_inf_nan=False)
        from_json(b"%b%b%b" % (b"[" * depth, piece, b"]" * depth), allow_inf_nan=False)
    return piece


def _plain(value: Any) -> Any:
    if callable(tolist := getattr(value, "tolist", None)):  # NumPy's and PyTorch's
        return tolist()
    raise TypeError(f"a {type(value).__name__} is not a JSON value")
