"""The JSON on the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

EXAMPLE = "Sample input data for the model"


class PredictionRequest(BaseModel):
    """What the model is to work on."""

    model_config = ConfigDict(
        strict=True, extra="forbid", json_schema_extra={"examples": [{"input": EXAMPLE}]}
    )

    input: str


class PredictionOutput(BaseModel):
    """What the model made of it: a text from the mock, any JSON value from a model of yours."""

    input: str
    result: JsonValue


class PredictionAccepted(BaseModel):
    """The prediction is in the queue; it will be run."""

    message: str
    prediction_id: str


class PredictionDone(BaseModel):
    """A prediction that succeeded."""

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

    url: str
    #: waiting for the end, pending until it is told, then delivered, or failed: given up
    state: Literal["waiting", "pending", "delivered", "failed"]
    next_attempt: datetime | None
    attempts: list[WebhookAttempt]


class PredictionRedelivery(BaseModel):
    """The webhook will be sent again."""

    prediction_id: str
    state: str


class Health(BaseModel):
    """The process serves."""

    status: str
