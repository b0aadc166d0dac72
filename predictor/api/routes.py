"""One short function for each endpoint."""

import hashlib
import time

from fastapi import APIRouter, Request, Response
from fastapi.sse import EventSourceResponse
from pydantic_core import to_json

from predictor.api import answers
from predictor.api.dependencies import (
    accept_webhook,
    known_prediction,
    prediction_id,
    read_input,
    state,
    wait_for_end,
    while_connected,
)
from predictor.api.descriptions import (
    CANCEL_ANSWERS,
    ERASE_ANSWERS,
    EVENTS_ANSWERS,
    EVENTS_REQUEST,
    ID_IN_PATH,
    LIVE_ANSWERS,
    PREDICT_ANSWERS,
    PREDICT_REQUEST,
    READ_ANSWERS,
    READ_REQUEST,
    READY_ANSWERS,
    REDELIVER_ANSWERS,
    STATUS_ANSWERS,
    WEBHOOK_ANSWERS,
)
from predictor.api.errors import answer, no_webhook, retry_after, unknown_id
from predictor.api.events import follow
from predictor.api.headers import Wishes, last_event_id, preferences, wishes
from predictor.errors import PredictionError, StoreUnavailable, TimedOut
from predictor.prediction import DeliveryState, Job, Json, Output, new_id
from predictor.store.predictions import Cancellation, Twin

router = APIRouter()

_CANNOT_BE_STOPPED = (
    "The model runs in a thread, which cannot be stopped: its slot stays taken until it ends, and "
    "its result is dropped."
)


@router.post(
    "/predict", tags=["predictions"], responses=PREDICT_ANSWERS, openapi_extra=PREDICT_REQUEST
)
async def predict(request: Request) -> Response:
    """Run the model on an input: at once, or later with the header `Async-Mode: true`."""
    wished = wishes(request.headers)
    text = await read_input(request)
    if wished.is_queued:
        return await _queue(request, text, wished)
    return await while_connected(request, _run(request, text, wished))


async def _run(request: Request, text: str, wished: Wishes) -> Response:
    parts, began = state(request), time.monotonic()
    started = began
    result: Json | PredictionError
    try:
        async with parts["slots"].take():
            started = time.monotonic()
            seconds = parts["config"].timeout
            if wished.cancel_after is not None:
                seconds = min(seconds, wished.cancel_after - (started - began))
            if seconds <= 0:
                raise TimedOut
            result = await parts["model"].run(text, seconds)
    except PredictionError as error:
        result = error
    timing = answers.timing(started - began, time.monotonic() - started)
    if isinstance(result, PredictionError):
        return answer(result, timing)
    return answers.json(Output(text, result).to_json(), 200, timing)


async def _queue(request: Request, text: str, wished: Wishes) -> Response:
    """Accept it; then wait for it, if that is wished, and answer as a sync call would."""
    parts, twin = state(request), None
    webhook = await accept_webhook(request, wished.webhook) if wished.webhook is not None else None
    if key := wished.idempotency_key:
        twin = Twin(_digest(key), _digest(key, text, webhook or ""))
    job = Job(text, wished.cancel_after, webhook)
    submitted = await parts["predictions"].submit(new_id(), job, twin)
    id_ = submitted.id
    headers = {"Location": f"{request.scope.get('root_path', '')}/predict/{id_}"}
    headers |= wished.preferences.applied()
    if submitted.is_replay:
        headers["Idempotency-Replayed"] = "true"
    ask_in = submitted.ask_in
    if seconds := wished.wait(parts["config"].timeout):
        try:
            prediction = await while_connected(request, wait_for_end(parts, id_, seconds))
        except StoreUnavailable:  # it is accepted all the same: say under which id
            return answers.accepted(id_, headers | retry_after(ask_in))
        if prediction is None:
            return unknown_id()
        if not prediction.is_active:
            body = prediction.output.to_json() if prediction.output else b""
            return answers.ended(prediction, body, headers)
        ask_in = prediction.ask_in
    return answers.accepted(id_, headers | retry_after(ask_in))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


@router.get(
    "/predict/{prediction_id}",
    tags=["predictions"],
    responses=READ_ANSWERS,
    openapi_extra=READ_REQUEST,
)
async def read_prediction(request: Request) -> Response:
    """Read an accepted prediction: 200 done, 202 ask again, anything else will not succeed."""
    id_, preferred = prediction_id(request), preferences(request.headers)
    if id_ is None:
        return unknown_id()
    prediction = await state(request)["predictions"].read(id_)
    if preferred.wait and prediction and prediction.is_active:
        waiting = wait_for_end(state(request), id_, preferred.wait)
        prediction = await while_connected(request, waiting)
    if prediction is None:
        return unknown_id()
    headers = {} if preferred.wait is None else {"Preference-Applied": f"wait={preferred.wait}"}
    if prediction.is_active:
        return answers.pending(prediction, headers)
    body = answers.done(id_, prediction.output) if prediction.output else b""
    return answers.ended(prediction, body, headers)


@router.get(
    "/predict/{prediction_id}/status",
    tags=["predictions"],
    responses=STATUS_ANSWERS,
    openapi_extra=ID_IN_PATH,
)
async def read_status(request: Request) -> Response:
    """How far a prediction is: 200 for every known one, whatever became of it."""
    prediction = await known_prediction(request)
    return answers.status(prediction) if prediction else unknown_id()


@router.get(
    "/predict/{prediction_id}/events",
    tags=["predictions"],
    response_class=Response,
    responses=EVENTS_ANSWERS,
    openapi_extra=EVENTS_REQUEST,
)
async def read_events(request: Request) -> Response:
    """What happens to a prediction, as it happens: Server-Sent Events, until it has ended."""
    parts, after = state(request), last_event_id(request.headers)
    prediction = await known_prediction(request)
    if prediction is None:
        return unknown_id()
    id_ = prediction.id
    if after and not prediction.is_active and not await parts["predictions"].events(id_, after):
        return Response(status_code=204)  # a browser would come back for ever
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventSourceResponse(follow(parts, id_, after), headers=headers)


@router.delete(
    "/predict/{prediction_id}",
    tags=["predictions"],
    status_code=204,
    responses=ERASE_ANSWERS,
    openapi_extra=ID_IN_PATH,
)
async def erase_prediction(request: Request) -> Response:
    """Remove the input, the result and the events of a prediction that has ended."""
    id_ = prediction_id(request)
    if id_ is None or not await state(request)["predictions"].erase(id_):
        return unknown_id()
    return Response(status_code=204)


@router.post(
    "/predict/{prediction_id}/cancel",
    tags=["predictions"],
    responses=CANCEL_ANSWERS,
    openapi_extra=ID_IN_PATH,
)
async def cancel_prediction(request: Request) -> Response:
    """End a prediction that waits or runs; then `GET /predict/{prediction_id}` answers 410."""
    id_ = prediction_id(request)
    outcome = await state(request)["predictions"].cancel(id_) if id_ else None
    if id_ is None or outcome is None:
        return unknown_id()
    body = {"prediction_id": id_, "status": outcome}
    if outcome is Cancellation.GONE:
        return answers.json(to_json(body))
    if not state(request)["model"].can_be_stopped:
        body["note"] = _CANNOT_BE_STOPPED
    return answers.json(to_json(body), 202)


@router.get(
    "/predict/{prediction_id}/webhook",
    tags=["predictions"],
    responses=WEBHOOK_ANSWERS,
    openapi_extra=ID_IN_PATH,
)
async def read_webhook(request: Request) -> Response:
    """What was tried to tell the webhook of a prediction, and what it answered."""
    id_ = prediction_id(request)
    told = await state(request)["predictions"].webhook(id_) if id_ else None
    return answers.webhook(told) if told else no_webhook()


@router.post(
    "/predict/{prediction_id}/webhook",
    tags=["predictions"],
    status_code=202,
    responses=REDELIVER_ANSWERS,
    openapi_extra=ID_IN_PATH,
)
async def send_webhook_again(request: Request) -> Response:
    """Tell the webhook of a prediction that has ended once more, whatever it answered."""
    id_ = prediction_id(request)
    if id_ is None or not await state(request)["predictions"].redeliver(id_):
        return no_webhook()
    return answers.json(to_json({"prediction_id": id_, "state": DeliveryState.PENDING}), 202)


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", tags=["health"], responses=LIVE_ANSWERS)
async def live() -> Response:
    """Whether this process serves, whatever the store does: restart it if not."""
    return answers.json(b'{"status":"live"}')


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", tags=["health"], responses=READY_ANSWERS)
async def ready(request: Request) -> Response:
    """Whether both kinds of prediction can be asked for: the model is loaded, the store answers."""
    await state(request)["predictions"].check()
    return answers.json(b'{"status":"ready"}')
