"""How /docs describes each endpoint: its headers, its answers, and an example of each.

An error is described by its class: its status is in a table, its sentence is its message.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from predictor import errors
from predictor.api.errors import status_of
from predictor.api.schemas import (
    EXAMPLE_ID,
    Error,
    Health,
    PredictionAccepted,
    PredictionCancellation,
    PredictionDone,
    PredictionFailed,
    PredictionOutput,
    PredictionRedelivery,
    PredictionRequest,
    PredictionStatus,
    PredictionWebhook,
)

Answers = dict[int | str, dict[str, Any]]

#: An error by its class, or a status with a sentence that it may say.
_Error = type[errors.PredictorError] | tuple[int, str]

_ANSWER_HEADERS = {
    "Retry-After": "Seconds to wait before the next try.",
    "Cache-Control": "`no-store`: it will change.",
    "Location": "Where the prediction can be read: `/predict/{prediction_id}`.",
    "Server-Timing": "Milliseconds that it waited and ran: `queue;dur=3.1, run;dur=1002.4`.",
    "Preference-Applied": "Which of the preferences were honoured (RFC 7240).",
    "Idempotency-Replayed": "`true`: this prediction was asked for before, with the same key.",
}


def _headers(*names: str) -> dict[str, Any]:
    return {
        name: {"description": _ANSWER_HEADERS[name], "schema": {"type": "string"}} for name in names
    }


def _answer(
    description: str, model: type[BaseModel], *headers: str, examples: Iterable[Any] = ()
) -> dict[str, Any]:
    extra: Any = model.model_config.get("json_schema_extra")
    shown = list(examples) or extra["examples"]
    return {
        "description": description,
        "model": model,
        "content": {
            "application/json": {"examples": {str(n): {"value": v} for n, v in enumerate(shown, 1)}}
        },
        "headers": _headers(*headers),
    }


def _raises(*kinds: _Error, more: dict[str, str] | None = None, headers: str = "") -> Answers:
    """The answers that these errors make; `more`: what their bodies hold beside the sentence."""
    bodies: dict[int, list[Any]] = {}
    for kind in kinds:
        status, said = kind if isinstance(kind, tuple) else (status_of(kind()), kind().message)
        bodies.setdefault(int(status), []).append({"error": said} | (more or {}))
    return {
        status: _answer(
            f"{HTTPStatus(status).phrase}.",
            PredictionFailed if more else Error,
            *(["Retry-After"] if status == HTTPStatus.SERVICE_UNAVAILABLE else headers.split()),
            examples=examples,
        )
        for status, examples in bodies.items()
    }


def _answers(known: Answers, *more: Answers) -> Answers:
    together = dict(known)
    for answers in more:
        together |= answers
    return together


def _parameter(name: str, description: str, example: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"} | schema,
        "example": example,
    }


#: The id in a path; were it a parameter, FastAPI would answer 422 in another shape.
ID_IN_PATH: dict[str, Any] = {
    "parameters": [
        {
            "name": "prediction_id",
            "in": "path",
            "required": True,
            "description": "As the 202 that accepted the prediction said.",
            "schema": {"type": "string"},
            "example": EXAMPLE_ID,
        }
    ]
}

#: Parameters of GET /predict/{prediction_id}.
READ_REQUEST: dict[str, Any] = {
    "parameters": [
        *ID_IN_PATH["parameters"],
        _parameter(
            "Prefer",
            "`wait=n`: hold the answer until the prediction has ended, at most `n` seconds, 60 at "
            "most (RFC 7240).",
            "wait=30",
        ),
    ]
}

#: Parameters of GET /predict/{prediction_id}/events.
EVENTS_REQUEST: dict[str, Any] = {
    "parameters": [
        *ID_IN_PATH["parameters"],
        _parameter(
            "Last-Event-ID",
            "The id of the last event that you have: go on after it. Browsers send it themselves.",
            "1795424058989-0",
        ),
    ]
}

#: Parameters and body of POST /predict, which its route reads by itself.
PREDICT_REQUEST: dict[str, Any] = {
    "parameters": [
        _parameter(
            "Async-Mode",
            "`true`: accept now and run later. `false` or absent: answer with the result. Case "
            "does not matter.",
            "true",
            enum=["true", "false"],
        ),
        _parameter(
            "Prefer",
            "`respond-async`: as `Async-Mode: true`. `wait=n`: queue it, and answer with the "
            "result if it ends within `n` seconds, else with the 202 of the same run (RFC 7240).",
            "wait=5",
        ),
        _parameter(
            "Idempotency-Key",
            "1 to 255 visible ASCII characters of your choice. The same key and body are the same "
            "prediction, for as long as it is known: a repeated request never runs twice.",
            "order-4711",
        ),
        _parameter(
            "Cancel-After",
            "Time over queue and run, like `30s`, `1m30s` or `500ms`, after which nobody wants it "
            "any more: it ends with 504, and what expires in the queue is never run.",
            "30s",
        ),
        _parameter(
            "Webhook-Url",
            "Told of the end by a signed POST (Standard Webhooks), however it ends. Only for "
            "predictions that are queued.",
            "https://example.com/predictions",
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PredictionRequest.model_json_schema()}},
    },
}

_UNKNOWN = _raises((404, "Prediction ID not found."), errors.StoreUnavailable)
_NO_WEBHOOK = _raises((404, "There is no webhook for this prediction ID."), errors.StoreUnavailable)
_ENDS = (errors.InvalidInput, errors.ModelFailed, errors.TimedOut)

PREDICT_ANSWERS = _answers(
    {
        200: _answer(
            "The result.",
            PredictionOutput,
            *("Server-Timing", "Location", "Preference-Applied", "Idempotency-Replayed"),
        ),
        202: _answer(
            "Accepted (`Async-Mode: true`): the store has it, a worker will run it.",
            PredictionAccepted,
            *("Location", "Retry-After", "Preference-Applied", "Idempotency-Replayed"),
        ),
    },
    _raises(
        (400, "The body is not valid JSON: expected value at line 1 column 1."),
        (400, "Header Async-Mode must be true or false, not 'maybe'."),
        errors.WebhookRefused,
        (408, "The body did not arrive in time; send it again."),
        errors.Canceled,
        (413, "The body is larger than 1048576 bytes (PREDICTOR_MAX_BODY)."),
        (415, "Send the body as JSON, with the header Content-Type: application/json."),
        (422, "Field 'input' is missing."),
        *(errors.KeyReused, errors.Overloaded, errors.StoreUnavailable, *_ENDS),
    ),
)

READ_ANSWERS = _answers(
    {
        200: _answer("It succeeded.", PredictionDone, "Server-Timing", "Preference-Applied"),
        202: _answer(
            "It waits in the queue or runs: ask again.",
            Error,
            *("Retry-After", "Cache-Control", "Preference-Applied"),
            examples=[{"error": "Prediction is still being processed."}],
        ),
    },
    _UNKNOWN,
    _raises(
        *(errors.Canceled, *_ENDS, errors.Expired, errors.GivenUp),
        more={"prediction_id": EXAMPLE_ID},
        headers="Server-Timing",
    ),
)

STATUS_ANSWERS = _answers(
    {
        200: _answer(
            "Known, whatever became of it. `Retry-After` while it has not ended, then "
            "`Server-Timing`.",
            PredictionStatus,
            *("Retry-After", "Server-Timing", "Cache-Control"),
        )
    },
    _UNKNOWN,
)

_EVENTS = """\
event: progress
data: {"fraction":0.4,"message":"4 of 10 pages"}
id: 1795424059500-0

event: completed
data: {"status":"succeeded","output":{"input":"…","result":"5678"}}
id: 1795424060000-0

"""

EVENTS_ANSWERS = _answers(
    {
        200: {
            "description": "`status` (`queued`, or `running` with the number of the try), "
            "`progress` and `output` as the model says them, and `completed` with the output or "
            "the error; then the stream ends. It can be resumed, and read again for as long as the "
            "result is kept.",
            "content": {"text/event-stream": {"example": _EVENTS}},
        },
        204: {"description": "It has ended, and there is nothing after `Last-Event-ID`."},
    },
    _raises((400, "Header Last-Event-ID must be an id that this stream sent.")),
    _UNKNOWN,
)

ERASE_ANSWERS = _answers(
    {204: {"description": "Its input, its result and its events are gone."}},
    _UNKNOWN,
    _raises(errors.StillActive),
)

_TOLD = [{"prediction_id": EXAMPLE_ID, "status": "canceling"}]

CANCEL_ANSWERS = _answers(
    {
        200: _answer("It will not be run, or was canceled before.", PredictionCancellation),
        202: _answer(
            "It runs; its worker has been told. The `note` says so where the model cannot be "
            "stopped.",
            PredictionCancellation,
            examples=_TOLD,
        ),
    },
    _UNKNOWN,
    _raises(errors.AlreadyEnded),
)

WEBHOOK_ANSWERS = _answers(
    {200: _answer("Who is told, and what came of it.", PredictionWebhook, "Cache-Control")},
    _NO_WEBHOOK,
)

REDELIVER_ANSWERS = _answers(
    {202: _answer("It is sent again.", PredictionRedelivery)},
    _NO_WEBHOOK,
    _raises(errors.StillActive),
)

LIVE_ANSWERS = _answers({200: _answer("The process serves.", Health)})

READY_ANSWERS = _answers(
    {200: _answer("Both kinds of prediction can be asked for.", Health)},
    _raises(errors.StoreUnavailable),
)
