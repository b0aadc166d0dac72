"""The JSON on the wire: each body is one model, which checks, writes and documents it."""

import time
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from predictor.prediction import DeliveryState, State, timestamp
from predictor.store.predictions import Cancellation

Id = Annotated[str, Field(examples=["5f0c3a1e9b7d4c62a8f1e2d3c4b5a697"])]

#: Seconds since 1970, written as RFC 3339 has it.
Timestamp = Annotated[
    float,
    PlainSerializer(timestamp),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Typed(NamedTuple):
    """The bodies with values of the model's types, known when the application is made."""

    request: Any
    output: Any
    done: Any

    @classmethod
    def of(cls, input_: Any, result_: Any) -> Self:
        class PredictionRequest(BaseModel):
            """What the model is to work on."""

            model_config = ConfigDict(strict=True, extra="forbid")

            input: input_ = Field(examples=["Sample input data for the model"])

        class PredictionOutput(BaseModel):
            """What the model made of it."""

            input: input_ = Field(examples=["Sample input data for the model"])
            result: result_ = Field(examples=["1234"])

        class PredictionDone(BaseModel):
            """A prediction that succeeded."""

            prediction_id: Id
            output: PredictionOutput

        return cls(PredictionRequest, PredictionOutput, PredictionDone)


class PredictionAccepted(BaseModel):
    """The prediction is in the queue; it will be run."""

    message: Literal["Request received. Processing asynchronously."]
    prediction_id: Id


class PredictionPending(BaseModel):
    """The prediction has not ended."""

    error: Literal["Prediction is still being processed."]


class Error(BaseModel):
    """What went wrong, in one sentence."""

    error: str
    #: of a prediction that was accepted, and ended without a result
    prediction_id: Annotated[Id | None, WithJsonSchema({"type": "string"})] = None


class Progress(BaseModel):
    """How far the model is, by its own account."""

    fraction: float = Field(examples=[0.4])
    message: str = Field(examples=["4 of 10 pages"])


class PredictionStatus(BaseModel):
    """All that is known of a prediction, but its output."""

    prediction_id: Id = Field(validation_alias="id")
    status: State = Field(validation_alias="state")
    #: 1 is the next to run; null unless it waits
    position: Annotated[int | None, BeforeValidator(lambda n: n if n is None else n + 1)] = Field(
        validation_alias="place"
    )
    estimated_start: Annotated[
        Timestamp | None, BeforeValidator(lambda s: s if s is None else time.time() + s)
    ] = Field(validation_alias="starts_in")
    created: Timestamp
    started: Timestamp | None
    finished: Timestamp | None
    #: how often it was started
    tries: int
    progress: Progress | None
    #: why it ended without an output
    error: Annotated[str | None, BeforeValidator(lambda error: error and error.message)]


class PredictionCancellation(BaseModel):
    """What became of the wish to cancel."""

    prediction_id: Id
    status: Cancellation
    note: str | None = None


class WebhookAttempt(BaseModel):
    """One attempt to deliver a webhook."""

    at: Timestamp
    seconds: Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3))]
    #: of the response; null: there was none
    status: int | None
    #: why it does not count as delivered
    error: str | None


class PredictionWebhook(BaseModel):
    """The webhook of a prediction, and its attempts."""

    url: str
    state: DeliveryState
    next_attempt: Timestamp | None = Field(validation_alias="next_at")
    attempts: list[WebhookAttempt]


class PredictionRedelivery(BaseModel):
    """The webhook will be sent again."""

    prediction_id: Id
    state: Literal[DeliveryState.PENDING] = DeliveryState.PENDING


class Health(BaseModel):
    """The process serves."""

    status: Literal["live", "ready"]
