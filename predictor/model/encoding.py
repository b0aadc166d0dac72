"""What a model returns, as JSON: written part by part, so that it can be ended."""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from predictor.errors import Canceled, ModelFailed
from predictor.prediction import Json

_NUMBERS = frozenset({int, float, bool, type(None)})
_STEP = 1000  # numbers that are written at once: no other thread runs meanwhile


def encode_json(value: Any, limit: int, is_over: Callable[[], bool] = bool) -> Json:
    """A model's `value` as JSON that can be read back: all that pydantic can write, and arrays.

    Raises ModelFailed with the reason: more than `limit` bytes, no JSON value, NaN or infinite, too
    deep, too long a number; Canceled when `is_over` says so; and what an iterator raises.
    """
    written = bytearray()
    try:
        for piece in _pieces(value, 0):
            written += piece
            if len(written) > limit:
                break
            if is_over():
                raise Canceled
        else:
            return Json(bytes(written))
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        reason = str(error).removeprefix("Error serializing to JSON: ")
        raise ModelFailed(f"The model's result cannot be written as JSON: {reason}") from error
    raise ModelFailed(f"The model's result is larger than {limit} bytes (PREDICTOR_MAX_RESULT).")


def is_small(value: Any, depth: int = 2) -> bool:
    """Whether `value` is written in microseconds, and runs no code of the model's meanwhile."""
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
    if parts is None:
        yield _piece(value, depth)
        return
    is_dict = isinstance(parts, dict)
    is_list = isinstance(parts, list | tuple)
    separator = b"{" if is_dict else b"["
    for step in _steps(parts) if is_list else ([part] for part in parts):
        if is_list and _NUMBERS.issuperset(map(type, step)):
            yield separator + _piece(step, depth)[1:-1]
            separator = b","
            continue
        for part in step:
            yield separator + (_piece({part: None}, depth)[1:-5] if is_dict else b"")
            yield from _pieces(parts[part] if is_dict else part, depth + 1)
            separator = b","
    yield (b"" if separator == b"," else separator) + (b"}" if is_dict else b"]")


def _steps(parts: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (parts[at : at + _STEP] for at in range(0, len(parts), _STEP))


def _parts(value: Any) -> Any:
    """A dict or an iterable of what `value` consists of; None if pydantic writes it as a whole."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "__pydantic_serializer__"):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(tolist := getattr(value, "tolist", None)):
        value = tolist()
    many = (dict, list, tuple, set, frozenset, deque)
    return value if isinstance(value, many) or hasattr(type(value), "__next__") else None


def _piece(value: Any, depth: int) -> bytes:
    piece = to_json(value, fallback=_plain)
    if type(value) is not str:
        from_json(b"%b%b%b" % (b"[" * depth, piece, b"]" * depth), allow_inf_nan=False)
    return piece


def _plain(value: Any) -> Any:
    """NumPy's and PyTorch's arrays and scalars by their `tolist`, without importing either."""
    if callable(tolist := getattr(value, "tolist", None)):
        return tolist()
    raise TypeError(f"a {type(value).__name__} is not a JSON value")
