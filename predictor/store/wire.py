"""Jobs and results as arq lays them out, in JSON instead of pickle, and strict on the way in.

What is in Redis may have been written by anybody who can reach it: nothing read here is believed
before its shape, types and ranges are checked.
"""

import contextlib
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict

from predictor import errors
from predictor.prediction import (
    Attempt,
    DeliveryState,
    Event,
    EventKind,
    Job,
    Json,
    Output,
    Prediction,
    PredictionId,
    Progress,
    State,
    Webhook,
    encode,
)
from predictor.store.keys import QUEUE

T = TypeVar("T")
#: The name under which the worker registers its one function.
FUNCTION: Final = "predict"
#: Milliseconds since 1970 that a datetime can hold.
_Ms = Annotated[int, Field(ge=0, le=253_402_300_799_000)]
#: Seconds from its submit until a prediction is no longer wanted.
_CancelAfter = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]
_Name = Annotated[str, Field(max_length=1000)]
_Trace = dict[_Name, _Name]
#: What precedes the input in a result as it is written here.
_INPUT: Final = b',"a":'


class Model(TypedDict, total=False):
    model: _Name  # its path
    model_version: _Name


@with_config(extra="ignore")  # and not strict
class _Terms(Model, total=False):
    cancel_after: _CancelAfter | None
    trace: _Trace  # that it is part of


class _Job(BaseModel, strict=True):
    """arq's job: try, function, positional and named arguments, time of submit.

    Other fields, which a later version may add, are ignored.
    """

    t: Annotated[int, Field(ge=0, le=10**6)] | None
    f: Literal["predict"]
    a: Annotated[list[Any], Field(min_length=1, max_length=1)]
    k: _Terms
    et: _Ms


class _Result(BaseModel, strict=True):
    """What is read of arq's result: a job's fields, and success, result, start, end."""

    t: int
    a: list[Any]
    k: Model
    et: _Ms
    s: bool
    r: Any
    st: _Ms
    ft: _Ms


MODEL, TRACE, PROGRESS = TypeAdapter(Model), TypeAdapter(_Trace), TypeAdapter(Progress)
_attempt = TypeAdapter(Attempt)


def decode(kind: TypeAdapter[T], data: bytes) -> T | None:
    """A part of what is stored; None where there is none, or not ours."""
    with contextlib.suppress(ValidationError):
        return kind.validate_json(data) if data else None
    return None


def encode_job(job: Job, submitted_ms: int) -> bytes:
    terms = {name: value for name in _Terms.__annotations__ if (value := getattr(job, name))}
    head = {"t": None, "f": FUNCTION, "k": terms, "et": submitted_ms}
    return b"%b%b[%b]}" % (to_json(head)[:-1], _INPUT, job.input)


def decode_job(data: bytes | None) -> Job:
    """Raises Unreadable, with the reason as its cause, for what is not a job."""
    try:
        job = _Job.model_validate_json(data or b"")
        return Job(encode(job.a[0]), **job.k)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"not a job: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise errors.Unreadable from ValueError(reason)
    except ValueError as error:
        raise errors.Unreadable from error


def encode_ended(
    id_: str,
    outcome: Output | errors.PredictionError,
    tries: int = 0,
    times: tuple[int, int, int] = (0, 0, 0),
    model: Model | None = None,
) -> bytes:
    """The result of a prediction as arq stores it; input and output come last.

    `times`: when it was created, started and finished, ms since 1970. `model`: that ran.
    """
    is_success = isinstance(outcome, Output)
    terms = {name: value for name, value in (model or {}).items() if value}
    head = {"t": tries, "f": FUNCTION, "k": terms, "s": is_success, "q": QUEUE}
    head |= dict(zip(("et", "st", "ft"), times, strict=True)) | {"id": id_}
    if isinstance(outcome, Output):
        data = b"[%b]" % outcome.input, outcome.result
    else:
        data = b"[]", Json(to_json({"code": outcome.code, "message": str(outcome)}))
    return b'%b%b%b,"r":%b}' % (to_json(head)[:-1], _INPUT, *data)


def decode_ended(id_: PredictionId, data: bytes, *, is_head: bool = False) -> Prediction:
    """The prediction whose stored result this is; Unreadable if it is none of ours.

    `is_head`: these are its first bytes only. What succeeded then has no output.
    """
    if is_head:
        data = data.partition(_INPUT)[0] + _INPUT + b'[],"r":null}'
    try:
        result = _Result.model_validate(from_json(data, allow_inf_nan=False))
        outcome = None if is_head and result.s else _outcome(result)
    except ValueError:  # ValidationError is one
        return Prediction(id_, State.FAILED, 0, None, 0, error=errors.Unreadable())
    is_started = result.st and not isinstance(outcome, errors.Expired)
    started = result.st / 1000 if is_started else None
    times = (result.et / 1000, started, result.ft / 1000, result.t)
    if isinstance(outcome, errors.PredictionError):
        return Prediction(id_, State.of(outcome), *times, error=outcome, **result.k)
    return Prediction(id_, State.SUCCEEDED, *times, output=outcome, **result.k)


def _outcome(result: _Result) -> Output | errors.PredictionError:
    if result.s:
        (value,) = result.a
        return Output(encode(value), encode(result.r))
    match result.r:
        case {"code": str(code), "message": str(message)}:
            return errors.BY_CODE.get(code, errors.PredictionError)(message)
    raise ValueError("not a failure")


def decode_event(number: int, data: bytes) -> Event | None:
    """An event as the scripts write it; None where it is none of ours."""
    kind, _, value = data.partition(b" ")
    with contextlib.suppress(ValueError):
        return Event(str(number), EventKind(kind.decode()), Json(value))
    return None


def decode_webhook(fields: dict[bytes, bytes], next_ms: float | None) -> Webhook | None:
    """A webhook as it is stored; None where there is none, or not ours."""
    kept = [data for name, data in fields.items() if name.startswith(b"attempt:")]
    with contextlib.suppress(KeyError, ValueError):  # ValidationError is one
        attempts = sorted(map(_attempt.validate_json, kept), key=lambda attempt: attempt.at)
        state = DeliveryState(fields.get(b"state", b"waiting").decode())
        is_due = next_ms is not None and state is DeliveryState.PENDING
        next_at = (next_ms or 0) / 1000 if is_due else None
        return Webhook(fields[b"url"].decode(), state, attempts, next_at)
    return None
