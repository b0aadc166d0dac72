"""The JSON on the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

EXAMPLE_ID = "5f0c3a1e9b7d4c62a8f1e2d3c4b5a697"

_OUTPUT: JsonValue = {"input": "Sample input data for the model", "result": "1234"}


def _example(**fields: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class PredictionRequest(BaseModel):
    """What the model is to work on."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"input": "Sample input data for the model"}]},
    )

    input: str


class PredictionOutput(BaseModel):
    """What the model made of it: a text from the mock, any JSON value from a model of yours."""

    model_config = _example(input="Sample input data for the model", result="1234")

    input: str
    result: JsonValue


class PredictionAccepted(BaseModel):
    """The prediction is in the queue; it will be run."""

    model_config = _example(
        message="Request received. Processing asynchronously.", prediction_id=EXAMPLE_ID
    )

    message: str
    prediction_id: str


class PredictionDone(BaseModel):
    """A prediction that succeeded."""

    model_config = _example(prediction_id=EXAMPLE_ID, output=_OUTPUT)

    prediction_id: str
    output: PredictionOutput


class Error(BaseModel):
    """What went wrong, in one sentence."""

    error: str


class PredictionFailed(BaseModel):
    """A prediction that ended without a result."""

    error: str
    prediction_id: str


class Progress(BaseModel):
    """What the model last said of how far it is."""

    fraction: float
    message: str


class PredictionStatus(BaseModel):
    """All that is known of a prediction, but its output."""

    model_config = _example(
        prediction_id=EXAMPLE_ID,
        status="running",
        position=None,
        estimated_start=None,
        created="2026-11-23T09:00:00.000Z",
        started="2026-11-23T09:00:01.500Z",
        finished=None,
        tries=1,
        progress={"fraction": 0.4, "message": "4 of 10 pages"},
        error=None,
    )

    prediction_id: str
    status: Literal["queued", "running", "succeeded", "failed", "canceled", "timed_out"]
    #: 1 is the next to run; null unless it waits
    position: int | None
    estimated_start: datetime | None
    created: datetime
    started: datetime | None
    finished: datetime | None
    #: how often it was started
    tries: int
    progress: Progress | None
    #: why it ended without an output
    error: str | None


class PredictionCancellation(BaseModel):
    """What became of the wish to cancel."""

    model_config = _example(prediction_id=EXAMPLE_ID, status="canceled")

    prediction_id: str
    status: str
    note: str | None = None


class WebhookAttempt(BaseModel):
    """One attempt to tell a webhook."""

    at: datetime
    seconds: float
    #: what it answered; null: nothing
    status: int | None
    #: why it does not count as told
    error: str | None


class PredictionWebhook(BaseModel):
    """Who is told of a prediction's end, and what came of it."""

    model_config = _example(
        url="https://example.com/predictions",
        state="pending",
        next_attempt="2026-11-23T09:00:04.100Z",
        attempts=[
            {
                "at": "2026-11-23T09:00:02.000Z",
                "seconds": 0.104,
                "status": 503,
                "error": "It answered 503.",
            }
        ],
    )

    url: str
    #: waiting for the end, pending until it is told, then delivered, or failed: given up
    state: Literal["waiting", "pending", "delivered", "failed"]
    next_attempt: datetime | None
    attempts: list[WebhookAttempt]


class PredictionRedelivery(BaseModel):
    """The webhook will be sent again."""

    model_config = _example(prediction_id=EXAMPLE_ID, state="pending")

    prediction_id: str
    state: str


class Health(BaseModel):
    """The process serves."""

    model_config = _example(status="ready")

    status: str
