"""How /docs describes each endpoint: its headers, its answers, and an example of each."""

from typing import Any

from predictor.api.schemas import (
    EXAMPLE,
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

_ID = "5f0c3a1e9b7d4c62a8f1e2d3c4b5a697"


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


def _error(description: str, *, headers: Any = None, **sentences: Any) -> dict[str, Any]:
    """An answer whose body is one of these sentences, or an example that is whole already."""
    examples = {
        name: {"error": said} if isinstance(said, str) else said for name, said in sentences.items()
    }
    return _answer(description, Error, headers=headers, **examples)


_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before the next try.",
        "schema": {"type": "integer"},
    }
}


def _text_header(name: str, description: str) -> dict[str, Any]:
    return {name: {"description": description, "schema": {"type": "string"}}}


_NO_STORE = _text_header("Cache-Control", "`no-store`: it will change.")
_LOCATION = _text_header(
    "Location", "Where the prediction can be read: `/predict/{prediction_id}`."
)
_TIMING = _text_header(
    "Server-Timing", "Milliseconds that it waited and ran: `queue;dur=3.1, run;dur=1002.4`."
)
_APPLIED = _text_header("Preference-Applied", "Which of the preferences were honoured (RFC 7240).")
_REPLAYED = _text_header(
    "Idempotency-Replayed", "`true`: this prediction was asked for before, with the same key."
)


def _parameter(name: str, description: str, example: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"} | schema,
        "example": example,
    }


_PREFER_WAIT = _parameter(
    "Prefer",
    "`wait=n`: hold the answer until the prediction has ended, at most `n` seconds, 60 at most "
    "(RFC 7240).",
    "wait=30",
)

_MODEL_ERRORS = {
    "failed": {"error": "The model failed on this input."},
    "refused": {"error": "The model refused this input."},
    "late": {"error": "The prediction ran out of time (300 s)."},
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
            "example": _ID,
        }
    ]
}

#: Parameters of GET /predict/{prediction_id}.
READ_REQUEST: dict[str, Any] = {"parameters": [*ID_IN_PATH["parameters"], _PREFER_WAIT]}

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

_CANCELED = _answer(
    "It was canceled.",
    PredictionFailed,
    headers=_TIMING,
    canceled={"error": "Prediction was canceled.", "prediction_id": _ID},
)

PREDICT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "The result.",
        PredictionOutput,
        headers=_TIMING | _LOCATION | _APPLIED | _REPLAYED,
        sync={"input": EXAMPLE, "result": "1234"},
    ),
    202: _answer(
        "Accepted (`Async-Mode: true`): the store has it, a worker will run it.",
        PredictionAccepted,
        headers=_LOCATION | _RETRY_AFTER | _APPLIED | _REPLAYED,
        accepted={
            "message": "Request received. Processing asynchronously.",
            "prediction_id": _ID,
        },
    ),
    400: _error(
        "The body is not JSON, or a header says what it cannot.",
        not_JSON="The body is not valid JSON: expected value at line 1 column 1.",
        unclear_mode="Header Async-Mode must be true or false, not 'maybe'.",
        unsafe="Webhook-Url must lead to a public address, or to one in PREDICTOR_WEBHOOK_ALLOW.",
        unclear_time="Header Cancel-After must be a time like 30s, 1m30s or 500ms, at most 720h.",
    ),
    410: _CANCELED,
    408: _error(
        "The body took too long to arrive.", late="The body did not arrive in time; send it again."
    ),
    413: _error(
        "The body is too large.",
        too_large="The body is larger than 1048576 bytes (PREDICTOR_MAX_BODY).",
    ),
    415: _error(
        "The body is not declared as JSON.",
        not_declared="Send the body as JSON, with the header Content-Type: application/json.",
    ),
    422: _error(
        "The body has the wrong shape, the model refuses the input, or the idempotency key was "
        "used with another body.",
        missing="Field 'input' is missing.",
        reused="Header Idempotency-Key was used with another request before; use a new key.",
        refused=_MODEL_ERRORS["refused"],
    ),
    500: _answer("The model failed.", Error, headers=_TIMING, failed=_MODEL_ERRORS["failed"]),
    503: _error(
        "The store cannot be used, the queue is full, or all slots are taken.",
        headers=_RETRY_AFTER,
        full="The queue is full: 10000 predictions wait; try again later.",
        no_slot="All 10 slots are taken; try again later, or with Async-Mode: true.",
        no_store="The store cannot be used (ConnectionError); try again.",
    ),
    504: _answer("It ran out of time.", Error, headers=_TIMING, late=_MODEL_ERRORS["late"]),
}

READ_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "It succeeded.",
        PredictionDone,
        headers=_TIMING | _APPLIED,
        done={"prediction_id": _ID, "output": {"input": EXAMPLE, "result": "5678"}},
    ),
    202: _error(
        "It waits in the queue or runs: ask again.",
        headers=_RETRY_AFTER | _NO_STORE | _APPLIED,
        pending="Prediction is still being processed.",
    ),
    404: _error(
        "Unknown: never accepted, no longer kept, or not an id at all.",
        unknown="Prediction ID not found.",
    ),
    410: _CANCELED,
    422: _answer(
        "The model refused the input.",
        PredictionFailed,
        headers=_TIMING,
        refused=_MODEL_ERRORS["refused"] | {"prediction_id": _ID},
    ),
    500: _answer(
        "The model failed, or its worker died each time.",
        PredictionFailed,
        headers=_TIMING,
        failed=_MODEL_ERRORS["failed"] | {"prediction_id": _ID},
    ),
    503: _error(
        "The store cannot be used: nothing is known of the prediction.",
        headers=_RETRY_AFTER,
        no_store="The store cannot be used (ConnectionError); try again.",
    ),
    504: _answer(
        "It ran out of time, in the queue or while it ran.",
        PredictionFailed,
        headers=_TIMING,
        late=_MODEL_ERRORS["late"] | {"prediction_id": _ID},
    ),
}

STATUS_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "Known, whatever became of it. `Retry-After` while it has not ended, then `Server-Timing`.",
        PredictionStatus,
        headers=_RETRY_AFTER | _TIMING | _NO_STORE,
        running={
            "prediction_id": _ID,
            "status": "running",
            "position": None,
            "estimated_start": None,
            "created": "2026-11-23T09:00:00.000Z",
            "started": "2026-11-23T09:00:01.500Z",
            "finished": None,
            "tries": 1,
            "progress": {"fraction": 0.4, "message": "4 of 10 pages"},
            "error": None,
        },
    ),
    404: READ_ANSWERS[404],
    503: READ_ANSWERS[503],
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


_EVENTS = """\
event: progress
data: {"fraction":0.4,"message":"4 of 10 pages"}
id: 1795424059500-0

event: output
data: "Once upon"
id: 1795424059600-0

event: completed
data: {"status":"succeeded","output":{"input":"…","result":"5678"}}
id: 1795424060000-0

"""

EVENTS_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`status` (`queued`, or `running` with the number of the try), `progress` "
        "and `output` as the model says them, and `completed` with the output or the error; then "
        "the stream ends. It can be resumed, and read again for as long as the result is kept.",
        "content": {"text/event-stream": {"example": _EVENTS}},
    },
    204: {"description": "It has ended, and there is nothing after `Last-Event-ID`."},
    400: _error(
        "`Last-Event-ID` is none.",
        no_id="Header Last-Event-ID must be an id that this stream sent.",
    ),
    404: READ_ANSWERS[404],
    503: READ_ANSWERS[503],
}

ERASE_ANSWERS: dict[int | str, dict[str, Any]] = {
    204: {"description": "Its input, its result and its events are gone."},
    404: READ_ANSWERS[404],
    409: _error(
        "It waits or runs: cancel it first.",
        active="Prediction has not ended yet; cancel it first.",
    ),
    503: READ_ANSWERS[503],
}

CANCEL_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "It waited, and will not be run; or it was canceled before.",
        PredictionCancellation,
        gone={"prediction_id": _ID, "status": "canceled"},
    ),
    202: _answer(
        "It runs; its worker has been told. The `note` says so where the model cannot be stopped.",
        PredictionCancellation,
        told={"prediction_id": _ID, "status": "canceling"},
    ),
    404: READ_ANSWERS[404],
    409: _error("It has ended; nothing was changed.", ended="Prediction has already ended."),
    503: READ_ANSWERS[503],
}

_NO_WEBHOOK = _error(
    "Unknown, or nobody is told of its end.",
    no_webhook="There is no webhook for this prediction ID.",
)

WEBHOOK_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "Who is told, and what came of each attempt.",
        PredictionWebhook,
        headers=_NO_STORE,
        pending={
            "url": "https://example.com/predictions",
            "state": "pending",
            "next_attempt": "2026-11-23T09:00:04.100Z",
            "attempts": [
                {
                    "at": "2026-11-23T09:00:02.000Z",
                    "seconds": 0.104,
                    "status": 503,
                    "error": "It answered 503.",
                }
            ],
        },
    ),
    404: _NO_WEBHOOK,
    503: READ_ANSWERS[503],
}

REDELIVER_ANSWERS: dict[int | str, dict[str, Any]] = {
    202: _answer(
        "It is sent again.", PredictionRedelivery, again={"prediction_id": _ID, "state": "pending"}
    ),
    404: _NO_WEBHOOK,
    409: _error(
        "The prediction has not ended.",
        active="Prediction has not ended yet; its webhook is sent when it has.",
    ),
    503: READ_ANSWERS[503],
}

LIVE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer("The process serves.", Health, live={"status": "live"})
}

READY_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer("Both kinds of prediction can be asked for.", Health, ready={"status": "ready"}),
    503: _error(
        "Asynchronous predictions cannot be accepted, and why.",
        headers=_RETRY_AFTER,
        no_store="The store cannot be used (ConnectionError); try again.",
    ),
}
