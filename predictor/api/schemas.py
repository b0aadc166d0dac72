"""The JSON on the wire, and how /docs describes it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

_ID = "5f0c3a1e9b7d4c62a8f1e2d3c4b5a697"
_TEXT = "Sample input data for the model"


class PredictionRequest(BaseModel):
    """What the model is to work on."""

    model_config = ConfigDict(
        strict=True, extra="forbid", json_schema_extra={"examples": [{"input": _TEXT}]}
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


class PredictionCancellation(BaseModel):
    """What became of the wish to cancel."""

    prediction_id: str
    status: str
    note: str | None = None


class Health(BaseModel):
    """The process serves."""

    status: str


def _answer(
    description: str, model: Any, *, headers: Any = None, **examples: Any
) -> dict[str, Any]:
    named = {name.replace("_", " "): {"value": value} for name, value in examples.items()}
    return {
        "description": description,
        "model": model,
        "content": {"application/json": {"examples": named}},
        **({"headers": headers} if headers else {}),
    }


_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before the next try.",
        "schema": {"type": "integer"},
    }
}
_NO_STORE = {
    "Cache-Control": {"description": "`no-store`: it will change.", "schema": {"type": "string"}}
}
_LOCATION = {
    "Location": {
        "description": "Where the prediction can be read: `/predict/{prediction_id}`.",
        "schema": {"type": "string"},
    }
}

_MODEL_ERRORS = {
    "failed": {"error": "The model failed on this input."},
    "refused": {"error": "The model refused this input."},
    "late": {"error": "The prediction ran out of time (300 s)."},
}

#: The id in a path, which FastAPI would answer with its own 422 in another shape.
ID_IN_PATH: dict[str, Any] = {
    "parameters": [
        {
            "name": "prediction_id",
            "in": "path",
            "required": True,
            "description": "As the 202 that accepted the prediction said.",
            "schema": {"type": "string"},
            "example": _ID,
        }
    ]
}

#: Parameters and body of POST /predict, which its route reads by itself.
PREDICT_REQUEST: dict[str, Any] = {
    "parameters": [
        {
            "name": "Async-Mode",
            "in": "header",
            "required": False,
            "description": "`true`: accept now and run later. `false` or absent: answer with the "
            "result. Case does not matter.",
            "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PredictionRequest.model_json_schema()}},
    },
}

PREDICT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer("The result.", PredictionOutput, sync={"input": _TEXT, "result": "1234"}),
    202: _answer(
        "Accepted (`Async-Mode: true`): the store has it, a worker will run it.",
        PredictionAccepted,
        headers=_LOCATION | _RETRY_AFTER,
        accepted={
            "message": "Request received. Processing asynchronously.",
            "prediction_id": _ID,
        },
    ),
    400: _answer(
        "The body is not JSON, or `Async-Mode` says neither true nor false.",
        Error,
        not_JSON={"error": "The body is not valid JSON: expected value at line 1 column 1."},
        unclear_mode={"error": "Header Async-Mode must be true or false, not 'maybe'."},
    ),
    408: _answer(
        "The body took too long to arrive.",
        Error,
        late={"error": "The body did not arrive in time; send it again."},
    ),
    413: _answer(
        "The body is too large.",
        Error,
        too_large={"error": "The body is larger than 1048576 bytes (PREDICTOR_MAX_BODY)."},
    ),
    415: _answer(
        "The body is not declared as JSON.",
        Error,
        not_declared={"error": "Send the body as JSON, with Content-Type: application/json."},
    ),
    422: _answer(
        "The body has the wrong shape, or the model refuses the input.",
        Error,
        missing={"error": "Field 'input' is missing."},
        refused=_MODEL_ERRORS["refused"],
    ),
    500: _answer("The model failed.", Error, failed=_MODEL_ERRORS["failed"]),
    503: _answer(
        "The store cannot be used, the queue is full, or all slots are taken.",
        Error,
        headers=_RETRY_AFTER,
        full={"error": "The queue is full: 10000 predictions wait; try again later."},
        no_slot={"error": "All 10 slots are taken; try again later, or with Async-Mode: true."},
        no_store={"error": "The store cannot be used (ConnectionError); try again."},
    ),
    504: _answer("The model ran out of time.", Error, late=_MODEL_ERRORS["late"]),
}

READ_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "It succeeded.",
        PredictionDone,
        done={"prediction_id": _ID, "output": {"input": _TEXT, "result": "5678"}},
    ),
    202: _answer(
        "It waits in the queue or runs: ask again.",
        Error,
        headers=_RETRY_AFTER | _NO_STORE,
        pending={"error": "Prediction is still being processed."},
    ),
    404: _answer(
        "Unknown: never accepted, no longer kept, or not an id at all.",
        Error,
        unknown={"error": "Prediction ID not found."},
    ),
    410: _answer(
        "It was canceled.",
        PredictionFailed,
        canceled={"error": "Prediction was canceled.", "prediction_id": _ID},
    ),
    422: _answer(
        "The model refused the input.",
        PredictionFailed,
        refused=_MODEL_ERRORS["refused"] | {"prediction_id": _ID},
    ),
    500: _answer(
        "The model failed, or its worker died each time.",
        PredictionFailed,
        failed=_MODEL_ERRORS["failed"] | {"prediction_id": _ID},
    ),
    503: _answer(
        "The store cannot be used: nothing is known of the prediction.",
        Error,
        headers=_RETRY_AFTER,
        no_store={"error": "The store cannot be used (ConnectionError); try again."},
    ),
    504: _answer(
        "It ran out of time, in the queue or while it ran.",
        PredictionFailed,
        late=_MODEL_ERRORS["late"] | {"prediction_id": _ID},
    ),
}

CANCEL_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "It waited, and will not be run.",
        PredictionCancellation,
        gone={"prediction_id": _ID, "status": "canceled"},
    ),
    202: _answer(
        "It runs; its worker has been told. The `note` says so where the model cannot be stopped.",
        PredictionCancellation,
        told={"prediction_id": _ID, "status": "canceling"},
    ),
    404: READ_ANSWERS[404],
    409: _answer(
        "It has ended; nothing was changed.",
        Error,
        ended={"error": "Prediction has already ended."},
    ),
    503: READ_ANSWERS[503],
}

LIVE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer("The process serves.", Health, live={"status": "live"})
}

READY_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer("Both kinds of prediction can be asked for.", Health, ready={"status": "ready"}),
    503: _answer(
        "Asynchronous predictions cannot be accepted, and why.",
        Error,
        headers=_RETRY_AFTER,
        no_store={"error": "The store cannot be used (ConnectionError); try again."},
    ),
}
