"""The noun: a prediction's id, its state, its output. Pure: no clock, no I/O."""

import re
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from pydantic_core import to_json

from predictor.errors import PredictionError

PredictionId = NewType("PredictionId", str)

#: A value already written as JSON, in UTF-8.
Json = NewType("Json", bytes)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def new_id() -> PredictionId:
    """An id that nobody can guess: 128 random bits, 32 characters."""
    return PredictionId(uuid.uuid4().hex)


def parse_id(text: str) -> PredictionId | None:
    """`text` as an id, or None where it cannot be one: 1 to 64 of A-Z a-z 0-9 _ -."""
    return PredictionId(text) if _ID.fullmatch(text) else None


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


@dataclass(frozen=True, slots=True)
class Output:
    """What a prediction came to."""

    #: what the client sent
    input: str
    #: what the model made of it
    result: Json

    def to_json(self) -> Json:
        """`{"input": …, "result": …}`"""
        return Json(b'{"input":%b,"result":%b}' % (to_json(self.input), self.result))


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction as the store knows it at one moment."""

    id: PredictionId
    state: State
    #: set exactly when it succeeded
    output: Output | None = None
    #: set exactly when it failed
    error: PredictionError | None = None
