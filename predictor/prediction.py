"""The nouns: a prediction, its events, the delivery of its webhook. No clock, no I/O."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NewType

from pydantic_core import to_json

from predictor.errors import Canceled, Expired, PredictionError, TimedOut

PredictionId = NewType("PredictionId", str)

#: A value already encoded as JSON, in UTF-8.
Json = NewType("Json", bytes)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_EVENT_ID = re.compile(r"[0-9]{1,16}-[0-9]{1,16}", re.ASCII)


def encode(value: str) -> Json:
    """`value` as a JSON string."""
    return Json(to_json(value))


def splice(**members: Json) -> Json:
    """A JSON object of values that are already JSON."""
    parts = [part for name, value in members.items() for part in (b',"%b":' % name.encode(), value)]
    return Json(b"".join([b"{", parts[0][1:], *parts[1:], b"}"]))  # large ones are copied once


def new_id() -> PredictionId:
    """An unguessable id: 128 random bits, 32 characters."""
    return PredictionId(os.urandom(16).hex())


def parse_id(text: str) -> PredictionId | None:
    """`text`, if it can be an id: 1 to 64 of A-Z a-z 0-9 _ -."""
    return PredictionId(text) if _ID.fullmatch(text) else None


def timestamp(seconds: float) -> str:
    """Seconds since 1970 in RFC 3339 format, in milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_event_id(text: str) -> str | None:
    """`text`, if it can be the id of an event."""
    return text if _EVENT_ID.fullmatch(text) else None


class State(StrEnum):
    """The state of a prediction; the last four are final."""

    #: accepted, waiting for a worker
    QUEUED = "queued"
    #: leased by a worker
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    #: in its run, or in the queue
    TIMED_OUT = "timed_out"

    @classmethod
    def of(cls, error: PredictionError) -> "State":
        """The state of a prediction that ended with `error`."""
        if isinstance(error, Canceled):
            return cls.CANCELED
        return cls.TIMED_OUT if isinstance(error, TimedOut | Expired) else cls.FAILED


@dataclass(frozen=True, slots=True)
class Output:
    """The input of a prediction, and the result of its model."""

    input: str
    result: Json

    def to_json(self) -> Json:
        """`{"input": …, "result": …}`"""
        return splice(input=encode(self.input), result=self.result)


@dataclass(frozen=True, slots=True)
class Job:
    """A request for an async prediction."""

    input: str
    #: timeout of queue and run together, in seconds
    cancel_after: float | None = None
    #: URL to call when it has ended
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A snapshot of a prediction. Times are in seconds since 1970."""

    id: PredictionId
    state: State
    created: float
    started: float | None = None
    finished: float | None = None
    #: how often it was started
    tries: int = 0
    #: position in the queue, from 0; None unless queued
    position: int | None = None
    #: estimated seconds until it starts; None if unknown, or not queued
    estimated_wait: float | None = None
    #: seconds after which to ask again
    retry_after: float = 1.0
    #: seconds until it expires; None unless queued
    expires_in: float | None = None
    #: set if it succeeded and the output was read, too
    output: Output | None = None
    #: set if it ended otherwise
    error: PredictionError | None = None
    #: the latest that its model reported
    progress: "Progress | None" = None

    @property
    def is_active(self) -> bool:
        """Whether it is queued or running."""
        return self.state in {State.QUEUED, State.RUNNING}


@dataclass(frozen=True, slots=True)
class Progress:
    #: from 0 to 1
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Event:
    #: defines its order; see `parse_event_id`
    id: str
    kind: "EventKind"
    data: Json


class EventKind(StrEnum):
    #: queued, or running: `{"status": "running", "try": 1}`
    STATUS = "status"
    #: `{"fraction": 0.4, "message": "…"}`
    PROGRESS = "progress"
    #: a part of the output: any JSON value
    OUTPUT = "output"
    #: the output, or the error
    COMPLETED = "completed"


class DeliveryState(StrEnum):
    #: for the end of its prediction
    WAITING = "waiting"
    #: due, or between two attempts
    PENDING = "pending"
    DELIVERED = "delivered"
    #: given up: after a day, or a 410
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver a webhook. `at`: when it began; `seconds`: how long it took."""

    at: float
    seconds: float
    status: int | None = None
    #: why it does not count as delivered
    error: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    url: str
    state: DeliveryState
    attempts: list[Attempt]
    #: when it is tried next
    next_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that is due."""

    url: str
    prediction: Prediction
    #: attempts since `since`
    recent_tries: int
    #: when the prediction ended, or the delivery was requested again
    since: float
