"""The routes that depend on the model's types: make a prediction, and read it."""

import hashlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from predictor import errors
from predictor.api import responses
from predictor.api.body import read_input
from predictor.api.dependencies import app_state, known, path_id
from predictor.api.headers import (
    IDEMPOTENCY_REPLAYED,
    LOCATION,
    NO_STORE,
    PREFERENCE_APPLIED,
    RETRY_AFTER,
    SERVER_TIMING,
    PredictHeaders,
    Preferences,
    ReadHeaders,
)
from predictor.api.openapi import UNKNOWN, Responses, described, raises
from predictor.api.schemas import PredictionAccepted, PredictionPending, Typed
from predictor.api.waiting import wait_for_end, while_connected
from predictor.prediction import Job, Json, Output, new_id
from predictor.store.predictions import Twin
from predictor.webhooks.target import check_target


class _HotRoute(APIRoute):
    """A route whose endpoint reads the request itself; its dependencies only document it.

    FastAPI's own handler takes 40 us more for `POST /predict`, a quarter of the request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


_QUEUED = (LOCATION, PREFERENCE_APPLIED, IDEMPOTENCY_REPLAYED)
_ENDED = (SERVER_TIMING, NO_STORE, PREFERENCE_APPLIED)
_ENDS = (errors.InvalidInput, errors.ModelFailed, errors.TimedOut, errors.Canceled)


_PREDICT: Responses = {
    202: described(
        "Accepted: the prediction is in the store, a worker will run it.",
        *(*_QUEUED, RETRY_AFTER),
        model=PredictionAccepted,
    ),
    **raises(
        *(
            errors.InvalidHeader,
            errors.InvalidJson,
            errors.WebhookRefused,
            errors.UnknownPrediction,
        ),
        *(errors.BodyTimeout, errors.BodyTooLarge, errors.UnsupportedMediaType, errors.InvalidBody),
        *(errors.KeyReused, *_ENDS, errors.Overloaded, errors.StoreUnavailable),
        headers=(*_ENDED, *_QUEUED),
    ),
}
_READ: Responses = {
    202: described(
        "It waits in the queue or runs: ask again.",
        *(RETRY_AFTER, NO_STORE, PREFERENCE_APPLIED),
        model=PredictionPending,
    ),
    **UNKNOWN,
    **raises(*_ENDS, errors.Expired, errors.GivenUp, headers=_ENDED),
}


def create_router(bodies: Typed) -> APIRouter:
    """`bodies`: those of the model's types."""
    router = APIRouter(route_class=_HotRoute, tags=["predictions"])

    async def body(_: bodies.request) -> None:  # type: ignore[name-defined]
        """Documents the body."""

    router.post(
        "/predict",
        dependencies=[Depends(body)],
        openapi_extra=PredictHeaders.parameters(),
        responses=_PREDICT
        | {200: described("The result.", *_ENDED, *_QUEUED, model=bodies.output)},
    )(predict)
    router.get(
        "/predict/{prediction_id}",
        dependencies=[Depends(path_id)],
        openapi_extra=ReadHeaders.parameters(),
        responses=_READ | {200: described("It succeeded.", *_ENDED, model=bodies.done)},
    )(read_prediction)
    return router


async def predict(request: Request) -> Response:
    """Run the model on an input: at once, or later with the header `Async-Mode: true`."""
    headers = PredictHeaders.read(request.headers)
    text = await read_input(request)
    if headers.is_queued:
        return await _queue(request, text, headers)
    return await while_connected(request, _run(request, text, headers.cancel_after))


async def _run(request: Request, text: str, cancel_after: float | None) -> Response:
    state, began = app_state(request), time.monotonic()
    started = began
    result: Json | errors.PredictionError
    try:
        async with state["slots"].take():
            started = time.monotonic()
            seconds = state["config"].timeout
            if cancel_after is not None:
                seconds = min(seconds, cancel_after - (started - began))
            if seconds <= 0:
                raise errors.TimedOut
            result = await state["model"].run(text, seconds)
    except errors.PredictionError as error:
        result = error
    timing = responses.timing(started - began, time.monotonic() - started)
    if isinstance(result, errors.PredictionError):
        return responses.failed(result, timing)
    return responses.json(Output(text, result).to_json(), 200, timing)


async def _queue(request: Request, text: str, wanted: PredictHeaders) -> Response:
    """Accept the prediction; then wait for it, if asked to, and respond as a sync call would."""
    state, twin = app_state(request), None
    webhook = await _webhook(request, wanted.webhook_url)
    if key := wanted.idempotency_key:
        twin = Twin(_digest(key), _digest(key, text, webhook or ""))
    job = Job(text, wanted.cancel_after, webhook)
    submitted = await state["predictions"].submit(new_id(), job, twin)
    id_ = submitted.id
    headers = LOCATION(f"{request.scope.get('root_path', '')}/predict/{id_}")
    headers |= wanted.preferences.applied()
    if submitted.is_replay:
        headers |= IDEMPOTENCY_REPLAYED("true")
    ask_in = submitted.ask_in
    if seconds := wanted.wait(state["config"].timeout):
        try:
            prediction = await while_connected(request, wait_for_end(state, id_, seconds))
        except errors.StoreUnavailable:  # it is accepted all the same: say under which id
            return responses.accepted(id_, headers | responses.retry_after(ask_in))
        if not prediction.is_active:
            body = prediction.output.to_json() if prediction.output else b""
            return responses.ended(prediction, body, headers)
        ask_in = prediction.ask_in
    return responses.accepted(id_, headers | responses.retry_after(ask_in))


async def _webhook(request: Request, url: str | None) -> str | None:
    """The URL in its one spelling. Raises WebhookRefused."""
    state = app_state(request)
    if url is None:
        return None
    if not state["config"].signing_secrets:
        raise errors.WebhookRefused(
            "Webhook-Url is refused: PREDICTOR_WEBHOOK_SECRETS is not set here."
        )
    return await check_target(url, state["allowed"])


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


async def read_prediction(request: Request) -> Response:
    """Read an accepted prediction: 200 done, 202 ask again, anything else will not succeed."""
    id_ = await path_id(request.path_params["prediction_id"])
    preferences, state = ReadHeaders.read(request.headers).prefer, app_state(request)
    prediction = known(await state["predictions"].read(id_))
    if preferences.wait and prediction.is_active:
        waiting = wait_for_end(state, id_, preferences.wait)
        prediction = await while_connected(request, waiting)
    headers = Preferences(wait=preferences.wait).applied()
    if prediction.is_active:
        return responses.pending(prediction, headers)
    body = responses.done(id_, prediction.output) if prediction.output else b""
    return responses.ended(prediction, body, headers)
