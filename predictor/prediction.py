"""The nouns: a prediction, its events, the delivery of its webhook. Pure: no clock, no I/O."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, NewType

from pydantic_core import to_json

from predictor.errors import Canceled, Expired, PredictionError, TimedOut

PredictionId = NewType("PredictionId", str)

#: A value already written as JSON, in UTF-8.
Json = NewType("Json", bytes)


def splice(**members: Json) -> Json:
    """The JSON object with these members, which are not parsed again."""
    return Json(b"{%b}" % b",".join(b'"%b":%b' % (n.encode(), v) for n, v in members.items()))


_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def new_id() -> PredictionId:
    """An id that nobody can guess: 128 random bits, 32 characters."""
    return PredictionId(os.urandom(16).hex())


def parse_id(text: str) -> PredictionId | None:
    """`text` as an id, or None where it cannot be one: 1 to 64 of A-Z a-z 0-9 _ -."""
    return PredictionId(text) if _ID.fullmatch(text) else None


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 writes them, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


_EVENT_ID = re.compile(r"[0-9]{1,16}-[0-9]{1,16}", re.ASCII)


def parse_event_id(text: str) -> str | None:
    """`text` as the id of an event, or None where it cannot be one."""
    return text if _EVENT_ID.fullmatch(text) else None


class State(StrEnum):
    """How far a prediction has come."""

    #: accepted, waiting for a worker
    QUEUED = "queued"
    #: a worker holds its lease
    RUNNING = "running"
    #: ended with an output
    SUCCEEDED = "succeeded"
    #: ended without one; the error says why
    FAILED = "failed"
    #: somebody asked for it to end
    CANCELED = "canceled"
    #: ran longer than it may, or waited longer than it may
    TIMED_OUT = "timed_out"

    @classmethod
    def of(cls, error: PredictionError) -> "State":
        """The state of a prediction that ended with `error`."""
        match error:
            case Canceled():
                return cls.CANCELED
            case TimedOut() | Expired():
                return cls.TIMED_OUT
        return cls.FAILED


@dataclass(frozen=True, slots=True)
class Output:
    """What a prediction came to."""

    #: what the client sent
    input: str
    #: what the model made of it
    result: Json

    def to_json(self) -> Json:
        """`{"input": …, "result": …}`"""
        return splice(input=Json(to_json(self.input)), result=self.result)


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for."""

    #: what the client sent
    input: str
    #: seconds from its submit until it is no longer wanted; None: any time
    cancel_after: float | None = None
    #: URL that is told when it has ended; None: nobody is
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction as the store knows it at one moment. Times in seconds since 1970."""

    id: PredictionId
    state: State
    created: float
    started: float | None = None
    finished: float | None = None
    #: how often it was started
    tries: int = 0
    #: how many wait before it; None unless it waits
    place: int | None = None
    #: seconds until it starts, as far as the pace tells; None if it does not, or it does not wait
    starts_in: float | None = None
    #: seconds until it is worth asking again
    ask_in: float = 1.0
    #: seconds until it will have waited longer than it may; None unless it waits
    expires_in: float | None = None
    #: set when it succeeded, and it was asked for
    output: Output | None = None
    #: set exactly when it ended without one
    error: PredictionError | None = None
    #: what its model last said of it
    progress: "Progress | None" = None

    @property
    def is_active(self) -> bool:
        """Whether it has not ended: it waits or runs."""
        return self.state in {State.QUEUED, State.RUNNING}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    #: from 0 to 1
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a prediction."""

    #: its place in the order of events, as `parse_event_id` takes it
    id: str
    kind: "EventKind"
    data: Json


class EventKind(StrEnum):
    """What can happen to a prediction."""

    #: it waits, or runs: `{"status": "running", "try": 1}`
    STATUS = "status"
    #: its model said how far it is: `{"fraction": 0.4, "message": "…"}`
    PROGRESS = "progress"
    #: its model had a part of its output: any JSON value
    OUTPUT = "output"
    #: it has ended
    COMPLETED = "completed"


class DeliveryState(StrEnum):
    """How far the delivery of a webhook has come."""

    #: its prediction has not ended
    WAITING = "waiting"
    #: it is tried, again and again
    PENDING = "pending"
    #: the receiver has it
    DELIVERED = "delivered"
    #: given up: a day has passed, or the receiver wants no more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What happened. `at` and `seconds`: when it began, since 1970, and how long it took."""

    at: float
    seconds: float
    outcome: Literal["delivered", "gone", "failed"]
    status: int | None = None
    error: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of a prediction's end, and what came of it."""

    url: str
    state: DeliveryState
    attempts: list[Attempt]
    #: when it is tried next, seconds since 1970
    next_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be told now."""

    url: str
    prediction: Prediction
    #: how often it was tried since it was last asked for
    recent_tries: int
    #: when it was last asked for: by the end of the prediction, or to be sent again
    since: float
