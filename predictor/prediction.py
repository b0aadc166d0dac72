"""The nouns: a prediction, its events, the delivery of its webhook. No clock, no I/O."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NewType

from pydantic_core import from_json, to_json

from predictor import errors

PredictionId = NewType("PredictionId", str)
Json = NewType("Json", bytes)  # a value already encoded as JSON, in UTF-8
Trace = Mapping[str, str]  # what a span is part of, as headers of W3C's; empty: nothing
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def encode(value: Any) -> Json:
    """A value of JSON's types as JSON. Raises ValueError for one that is infinite or NaN."""
    written = to_json(value)
    if b"Infinity" in written or b"NaN" in written:
        try:
            from_json(written, allow_inf_nan=False)
        except ValueError:
            raise ValueError("a number is NaN, or beyond what a float can be") from None
    return Json(written)


def splice(**members: Json) -> Json:
    """A JSON object of values that are already JSON."""
    parts = [part for name, value in members.items() for part in (b',"%b":' % name.encode(), value)]
    return Json(b"".join([b"{", parts[0][1:], *parts[1:], b"}"]))  # large ones are copied once


def owner_of(name: str) -> str:
    """What the ids of a name's predictions begin with; empty without a name."""
    return f"{sha256(name.encode()).hexdigest()[:8]}_" if name else ""


def new_id(owner: str = "") -> PredictionId:
    """An unguessable id: its owner, and 128 random bits in 32 characters."""
    return PredictionId(owner + os.urandom(16).hex())


def parse_id(
    text: str, owner: str = "", error: type[Exception] = errors.UnknownPrediction
) -> PredictionId:
    """`text`, which can be an id of `owner`: 1 to 64 of A-Z a-z 0-9 _ -. Raises `error`."""
    if not (text.startswith(owner) and _ID.fullmatch(text)):
        raise error
    return PredictionId(text)


def timestamp(seconds: float) -> str:
    """Seconds since 1970 in RFC 3339 format, in milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


#: How a prediction was requested, and how it can end, as metrics and logs name it.
MODES: Final = ("sync", "async")
OUTCOMES: Final = (
    *("succeeded", "invalid_input", "failed", "timed_out", "canceled", "expired", "given_up"),
)


def outcome_of(outcome: "Output | errors.PredictorError") -> str:
    """One of OUTCOMES."""
    code = outcome.code if isinstance(outcome, errors.PredictorError) else "succeeded"
    return code if code in OUTCOMES else "failed"


class State(StrEnum):
    """The state of a prediction; the last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed_out"  # while it ran, or while it was queued

    @classmethod
    def of(cls, error: errors.PredictorError) -> "State":
        """The state of a prediction that ended with `error`."""
        if isinstance(error, errors.Canceled):
            return cls.CANCELED
        return cls.TIMED_OUT if isinstance(error, errors.TimedOut | errors.Expired) else cls.FAILED


class Output(NamedTuple):
    input: Json
    result: Json

    def to_json(self, *, is_minimal: bool = False) -> Json:
        """`{"input": …, "result": …}`, or without the input."""
        first = () if is_minimal else (b'"input":', self.input, b",")
        return Json(b"".join((b"{", *first, b'"result":', self.result, b"}")))


class Job(NamedTuple):
    """A request for an async prediction."""

    input: Json
    cancel_after: float | None = None  # timeout of queue and run together, in seconds
    webhook: str | None = None  # URL to call when it has ended
    key: str = ""  # digest of the client's idempotency key
    fingerprint: str = ""  # digest of the request that it was used with
    model: str = ""  # of the api that accepted it: path, and version, if one is set
    model_version: str = ""
    mode: str = "async"  # of MODES
    trace: Trace = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Prediction:
    """A snapshot of a prediction. Times are in seconds since 1970."""

    id: PredictionId
    state: State
    created: float
    started: float | None = None
    finished: float | None = None
    tries: int = 0
    position: int | None = None  # in the queue, from 0; None unless queued
    estimated_wait: float | None = None  # seconds until it starts; None if unknown, or not queued
    retry_after: float = 1.0  # seconds until it should be read again
    expires_in: float | None = None  # seconds until it expires; None unless queued
    output: Output | None = None  # set if it succeeded and the output was read, too
    error: errors.PredictionError | None = None  # set if it ended otherwise
    progress: "Progress | None" = None
    model: str = ""  # that ran it; until it has ended, that it was accepted for; empty: unknown
    model_version: str = ""

    @property
    def is_active(self) -> bool:
        return self.state in {State.QUEUED, State.RUNNING}


@dataclass(frozen=True, slots=True)
class Progress:
    fraction: float  # from 0 to 1
    message: str


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    kind: "EventKind"
    data: Json


class EventKind(StrEnum):
    STATUS = "status"  # queued, or running: `{"status": "running", "try": 1}`
    PROGRESS = "progress"  # `{"fraction": 0.4, "message": "…"}`
    OUTPUT = "output"  # a part of the output: any JSON value
    COMPLETED = "completed"  # the output, or the error


class DeliveryState(StrEnum):
    WAITING = "waiting"  # for the end of its prediction
    PENDING = "pending"  # due, or between two attempts
    DELIVERED = "delivered"
    FAILED = "failed"  # after a day, or a 410


@dataclass(frozen=True, slots=True)
class Attempt:
    at: float  # when it began
    seconds: float  # how long it took
    status: int | None = None
    error: str | None = None  # why it does not count as delivered
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    url: str
    state: DeliveryState
    attempts: list[Attempt]
    next_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that is due."""

    url: str
    prediction: Prediction
    recent_tries: int  # attempts since `since`
    since: float  # when the prediction ended, or the delivery was requested again
    trace: Trace = field(default_factory=dict)
