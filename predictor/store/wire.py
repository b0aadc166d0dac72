"""Jobs and results as arq lays them out, in JSON instead of pickle, and strict on the way in.

What is in Redis may have been written by anybody who can reach it: nothing read here is believed
before its shape, types and ranges are checked.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from arq.worker import JobExecutionFailed
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from predictor import errors
from predictor.delivery import Attempt, DeliveryState, Webhook
from predictor.prediction import (
    Event,
    EventKind,
    Job,
    Json,
    Output,
    Prediction,
    PredictionId,
    Progress,
    State,
)
from predictor.store.keys import QUEUE

#: The name under which the worker registers its one function.
FUNCTION: Final = "predict"

#: Milliseconds since 1970 that a datetime can hold.
_Ms = Annotated[int, Field(ge=0, le=253_402_300_799_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Terms(_Strict):
    """What arq hands to the function by name."""

    #: seconds from its submit until it is no longer wanted
    cancel_after: Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)] | None = None


class _Job(_Strict):
    """arq's job: try, function, positional and named arguments, time of submit."""

    t: Annotated[int, Field(ge=0, le=10**6)] | None
    f: Annotated[str, Field(max_length=100)]
    a: Annotated[list[str], Field(min_length=1, max_length=1)]
    k: _Terms
    et: _Ms


class _Failure(_Strict):
    code: str
    message: str


class _Result(_Strict):
    """arq's result: a job's fields, and success, result, start, end, queue, id."""

    t: int
    f: str
    a: list[str]
    k: dict[str, Any]
    et: _Ms
    s: bool
    r: Any
    st: _Ms
    ft: _Ms
    q: str
    id: str


_failure = TypeAdapter(_Failure)
_progress = TypeAdapter(Progress)
_attempt = TypeAdapter(Attempt)

_ERRORS: Final = {
    error.code: error
    for error in (
        errors.PredictionError,
        errors.InvalidInput,
        errors.ModelFailed,
        errors.TimedOut,
        errors.Canceled,
        errors.Expired,
        errors.GivenUp,
        errors.Unreadable,
    )
}


class Text(str):
    """An input whose `repr` does not show it: arq would build, and log, the first 80 characters."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} characters>"


@dataclass(frozen=True, slots=True)
class Result:
    """How a prediction ended. Times in seconds since 1970."""

    outcome: Output | errors.PredictionError
    created: float
    #: None: it never was
    started: float | None
    finished: float
    tries: int


def encode_job(job: Job, submitted_ms: int) -> bytes:
    """The job as arq stores it."""
    terms = {"cancel_after": job.cancel_after} if job.cancel_after else {}
    return to_json({"t": None, "f": FUNCTION, "a": [job.input], "k": terms, "et": submitted_ms})


def decode_job(data: bytes) -> dict[str, Any]:
    """arq's `job_deserializer`. Raises ValueError for whatever is not a job of ours."""
    try:
        job = _Job.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"not a job: {_reason(error)}") from None
    terms = job.k.model_dump(exclude_none=True)
    return {"t": job.t, "f": job.f, "a": (Text(job.a[0]),), "k": terms, "et": job.et}


def encode_result(result: dict[str, Any]) -> bytes:
    """arq's `job_serializer`: the worker writes nothing but results.

    `r` is the model's answer, as JSON, where it succeeded, and else what was raised.
    """
    outcome = result.pop("r")
    if not isinstance(outcome, bytes):
        result["s"] = False
        error = _as_prediction_error(outcome, result)
        outcome = to_json({"code": error.code, "message": error.message})
    return b'%b,"r":%b}' % (to_json(result)[:-1], outcome)


def encode_unrun(id_: str, error: errors.PredictionError, now_ms: int) -> bytes:
    """The result of a prediction that ended before a worker took it up."""
    times = {"et": 0, "st": now_ms, "ft": now_ms}  # the script fills in when it was submitted
    result = {"t": 0, "f": FUNCTION, "a": [], "k": {}, "s": False, "q": QUEUE, "id": id_} | times
    return encode_result(result | {"r": error})


def _as_prediction_error(raised: object, result: dict[str, Any]) -> errors.PredictionError:
    if isinstance(raised, errors.PredictionError):
        return raised
    if isinstance(raised, JobExecutionFailed) and not result["a"]:
        return errors.Expired()  # arq says so when the job's key is gone
    return errors.Unreadable()


def decode_result(data: bytes) -> Result:
    """What a stored result says; Unreadable if it is none of ours."""
    try:
        result = _Result.model_validate(from_json(data, allow_inf_nan=False))
        outcome: Output | errors.PredictionError
        if result.s:
            (text,) = result.a
            outcome = Output(text, Json(to_json(result.r)))
        else:
            failure = _failure.validate_python(result.r)
            outcome = _ERRORS.get(failure.code, errors.PredictionError)(failure.message)
    except ValueError:  # ValidationError is one
        return Result(errors.Unreadable(), 0, None, 0, 0)
    created, started, finished = (ms / 1000 for ms in (result.et, result.st, result.ft))
    if result.t == 0 or isinstance(outcome, errors.Expired):
        return Result(outcome, created, None, finished, max(0, result.t - 1))
    return Result(outcome, created, started, finished, result.t)


def decode_ended(id_: PredictionId, data: bytes) -> Prediction:
    """The prediction whose stored result this is."""
    result = decode_result(data)
    times = (result.created, result.started, result.finished, result.tries)
    if isinstance(result.outcome, Output):
        return Prediction(id_, State.SUCCEEDED, *times, output=result.outcome)
    return Prediction(id_, State.of(result.outcome), *times, error=result.outcome)


def decode_event(id_: bytes, fields: dict[bytes, bytes]) -> Event | None:
    """An event as the scripts write it; None where it is none of ours."""
    try:
        return Event(id_.decode(), EventKind(fields[b"event"].decode()), Json(fields[b"data"]))
    except (KeyError, ValueError):
        return None


def encode_attempt(attempt: Attempt) -> bytes:
    """An attempt to deliver a webhook as the store keeps it."""
    return _attempt.dump_json(attempt)


def decode_webhook(fields: dict[bytes, bytes], next_ms: float | None) -> Webhook | None:
    """What is stored of a webhook; None where that is nothing, or not ours."""
    told = [data for name, data in fields.items() if name.startswith(b"attempt:")]
    try:
        attempts = sorted(map(_attempt.validate_json, told), key=lambda attempt: attempt.at)
        state = DeliveryState(fields.get(b"state", b"waiting").decode())
        url = fields[b"url"].decode()
    except (KeyError, ValueError):  # ValidationError is one
        return None
    is_due = next_ms is not None and state is DeliveryState.PENDING
    return Webhook(url, state, attempts, (next_ms or 0) / 1000 if is_due else None)


def encode_progress(progress: Progress) -> bytes:
    """`{"fraction": …, "message": …}`"""
    return to_json({"fraction": progress.fraction, "message": progress.message})


def decode_progress(data: bytes) -> Progress | None:
    """What is stored of a run's progress; None where that is nothing, or not ours."""
    try:
        return _progress.validate_json(data)
    except ValidationError:
        return None


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
