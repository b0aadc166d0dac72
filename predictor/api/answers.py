"""What an answer about a prediction says: bodies, and the headers that tell its times."""

import time

from fastapi import Response
from pydantic_core import to_json

from predictor.api.errors import error_response, retry_after, status_of
from predictor.prediction import Output, Prediction, PredictionId, Webhook, timestamp

_NO_STORE = {"Cache-Control": "no-store"}


def json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer whose body is JSON already."""
    return Response(body, status, headers, "application/json")


def accepted(id_: PredictionId, headers: dict[str, str]) -> Response:
    """It is in the queue."""
    message = "Request received. Processing asynchronously."
    return json(to_json({"message": message, "prediction_id": id_}), 202, headers)


def pending(prediction: Prediction, headers: dict[str, str]) -> Response:
    """It has not ended."""
    headers = retry_after(prediction.ask_in) | _NO_STORE | headers
    return error_response(202, "Prediction is still being processed.", headers)


def done(id_: PredictionId, output: Output) -> bytes:
    """The body for what was accepted and has succeeded."""
    return b'{"prediction_id":%b,"output":%b}' % (to_json(id_), output.to_json())


def ended(prediction: Prediction, body: bytes, headers: dict[str, str]) -> Response:
    """It has ended: `body` where it succeeded, else why it did not."""
    headers = timing(*_durations(prediction)) | _NO_STORE | headers
    if error := prediction.error:
        return error_response(status_of(error), error.message, headers, prediction_id=prediction.id)
    return json(body, 200, headers)


def status(prediction: Prediction) -> Response:
    """All that is known of it, but its output."""
    now = time.time()
    starts = None if prediction.starts_in is None else now + prediction.starts_in
    progress = prediction.progress
    body = {
        "prediction_id": prediction.id,
        "status": prediction.state,
        "position": None if prediction.place is None else prediction.place + 1,
        "estimated_start": _iso(starts),
        "created": _iso(prediction.created),
        "started": _iso(prediction.started),
        "finished": _iso(prediction.finished),
        "tries": prediction.tries,
        "progress": progress and {"fraction": progress.fraction, "message": progress.message},
        "error": prediction.error and prediction.error.message,
    }
    is_active = prediction.is_active
    more = retry_after(prediction.ask_in) if is_active else timing(*_durations(prediction))
    return json(to_json(body), 200, _NO_STORE | more)


def webhook(told: Webhook) -> Response:
    """What was tried to tell a webhook, and what it answered."""
    attempts = [
        {
            "at": _iso(attempt.at),
            "seconds": round(attempt.seconds, 3),
            "status": attempt.status,
            "error": attempt.error,
        }
        for attempt in told.attempts
    ]
    body = {"url": told.url, "state": told.state, "next_attempt": _iso(told.next_at)}
    return json(to_json(body | {"attempts": attempts}), 200, _NO_STORE)


def timing(queue: float, run: float) -> dict[str, str]:
    """The header that says how many seconds a prediction waited and ran, in ms (Server-Timing)."""
    return {"Server-Timing": f"queue;dur={queue * 1000:.1f}, run;dur={run * 1000:.1f}"}


def _durations(prediction: Prediction) -> tuple[float, float]:
    finished = prediction.finished or prediction.created
    started = prediction.started or finished
    return max(0.0, started - prediction.created), max(0.0, finished - started)


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
