"""The JSON bodies, a model each: it documents, checks and writes them; `responses` writes some."""

import time
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
)
from pydantic.json_schema import JsonSchemaMode, WithJsonSchema

from predictor.prediction import DeliveryState, Progress, State, timestamp

_Text = Annotated[str | None, BeforeValidator(lambda text: text or None)]
Id = Annotated[str, Field(examples=["5f0c3a1e9b7d4c62a8f1e2d3c4b5a697"])]

_VALUES = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64", extra="forbid")
#: Seconds since 1970, written as RFC 3339 has it.
Timestamp = Annotated[
    float, PlainSerializer(timestamp), WithJsonSchema({"type": "string", "format": "date-time"})
]


class _Described(NamedTuple):
    """Describes a type as it is read ("validation") or as it is written, wherever it is used.

    An input is sent back as it came. A type that is described in both ways has two names, and so
    have the bodies around it.
    """

    type: Any
    mode: JsonSchemaMode = "validation"

    @classmethod
    def written(cls, type_: Any) -> Self:
        """A type as it is written, if that is not as it is read."""
        adapter = TypeAdapter(type_)
        is_same = adapter.json_schema() == adapter.json_schema(mode="serialization")
        return cls(type_, "validation" if is_same else "serialization")

    def __get_pydantic_json_schema__(self, _: Any, handler: Any) -> Any:
        generator, outer = handler.generate_json_schema, handler.mode
        generator._mode = self.mode  # noqa: SLF001 (a configuration would not reach types within)
        try:
            return generator.generate_inner(TypeAdapter(self.type).core_schema)
        finally:
            generator._mode = outer  # noqa: SLF001


def bodies(input_: Any, result_: Any) -> tuple[Any, Any, Any, Any]:
    """The bodies with the model's types: a request, an output, one that is read, a webhook."""
    examples = ["Sample input data for the model"] if input_ is str else None
    made = Annotated[Any, _Described.written(result_)]

    class PredictionRequest(BaseModel):
        """The input of the model."""

        model_config = _VALUES
        input: Annotated[Any, _Described(input_)] = Field(examples=examples)

    class PredictionOutput(BaseModel):
        """The result of the model; its input, too, without `Prefer: return=minimal`."""

        model_config = _VALUES | ConfigDict(json_schema_extra={"required": ["result"]})
        input: Annotated[Any, _Described(input_)] = Field(examples=examples)
        result: made = Field(examples=["1234"] if result_ in (str, Any) else None)

    class PredictionDone(BaseModel):
        """A prediction that succeeded."""

        prediction_id: Id
        output: PredictionOutput

    class WebhookData(BaseModel):
        """The prediction, with its output or the reason why there is none."""

        prediction_id: Id
        status: Literal["succeeded", "failed", "canceled", "timed_out"]
        output: PredictionOutput | None = None
        error: str | None = None

    class WebhookBody(BaseModel):
        """What a webhook sends, signed as Standard Webhooks says."""

        type: str = Field(pattern=r"^prediction\.", examples=["prediction.succeeded"])
        timestamp: Timestamp
        data: WebhookData

    return PredictionRequest, PredictionOutput, PredictionDone, WebhookBody


class PredictionAccepted(BaseModel):
    """Accepted: the prediction is in the store, a worker will run it."""

    message: Literal["Request received. Processing asynchronously."]
    prediction_id: Id


class PredictionPending(BaseModel):
    """The prediction is queued or running: ask again."""

    error: Literal["Prediction is still being processed."]


class Error(BaseModel):
    """What went wrong, in one sentence."""

    error: str
    #: of a prediction that was accepted, and ended without a result
    prediction_id: Annotated[Id | None, WithJsonSchema({"type": "string"})] = None


class PredictionStatus(BaseModel):
    """Everything known of a prediction, except its output."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    prediction_id: Id = Field(validation_alias="id")
    status: State = Field(validation_alias="state")
    position: Annotated[int, AfterValidator(lambda n: n + 1)] | None
    """1 is the next to run; null unless it waits."""
    estimated_start: Annotated[Timestamp, AfterValidator(lambda s: time.time() + s)] | None = Field(
        validation_alias="estimated_wait"
    )
    created: Timestamp
    started: Timestamp | None
    finished: Timestamp | None
    tries: int
    """How often it was started, without what was requeued by a stop of its worker."""
    model: _Text
    """That ran it; until it has ended, that it was accepted for. Null: none ran, or unknown."""
    model_version: _Text
    """PREDICTOR_MODEL_VERSION of the same."""
    progress: Progress | None
    error: Annotated[str | None, BeforeValidator(lambda error: error and str(error))]
    """Why it ended without an output."""


class PredictionCancellation(BaseModel):
    """The outcome of a cancel."""

    prediction_id: Id
    status: Literal["canceled", "canceling"]
    note: str | None = None


class WebhookAttempt(BaseModel):
    """One attempt to deliver a webhook."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    at: Timestamp
    seconds: Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3))]
    status: int | None
    """The status code of the response; null: there was none."""
    error: str | None
    """Why it does not count as delivered."""


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


class Workers(BaseModel):
    """The workers that are alive."""

    status: Literal["ready"] = "ready"
    workers: int
    slots: int
