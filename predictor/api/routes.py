"""The endpoints, and their responses as OpenAPI describes them."""

import hashlib
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse

from predictor import errors
from predictor.api import headers as http
from predictor.api import responses, schemas
from predictor.api.body import read_input
from predictor.api.dependencies import (
    KnownPrediction,
    PathId,
    Store,
    app_state,
    known,
    known_prediction,
    path_id,
)
from predictor.api.events import EXAMPLE, follow
from predictor.api.responses import described, raises
from predictor.api.waiting import wait_for_end, while_connected
from predictor.prediction import Job, Json, Output, Prediction, Webhook, new_id
from predictor.store.predictions import Cancellation, Twin
from predictor.webhooks.target import check_target

_CANNOT_BE_STOPPED = (
    "The model runs in a thread, which cannot be stopped: its slot stays taken until it ends, and "
    "its result is dropped."
)

_NO_WEBHOOK = (errors.NoWebhook, errors.UnknownPrediction)
_UNKNOWN = raises(errors.UnknownPrediction, errors.StoreUnavailable)
_FAILURES = errors.PredictionError.__subclasses__()

#: Headers of a prediction that was accepted, and of one that has ended.
_ACCEPTED = (http.LOCATION, http.PREFERENCE_APPLIED, http.IDEMPOTENCY_REPLAYED)
_ENDED = (http.SERVER_TIMING, http.CACHE_CONTROL, http.PREFERENCE_APPLIED)

predictions = APIRouter(
    prefix="/predict/{prediction_id}",
    tags=["predictions"],
    route_class=http.DirectRoute,
    responses=_UNKNOWN,
)
health = APIRouter(prefix="/health", tags=["health"])


async def predict(request: Request, headers: Annotated[http.PredictHeaders, Header()]) -> Response:
    """Run the model on an input: at once, or later with the header `Async-Mode: true`."""
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


async def _queue(request: Request, text: str, wanted: http.PredictHeaders) -> Response:
    """Accept the prediction; then wait for it, if asked to, and respond as a sync call would."""
    state, twin = app_state(request), None
    webhook = await _webhook(request, wanted.webhook_url)
    if key := wanted.idempotency_key:
        twin = Twin(_digest(key), _digest(key, text, webhook or ""))
    job = Job(text, wanted.cancel_after, webhook)
    submitted = await state["predictions"].submit(new_id(), job, twin)
    id_ = submitted.id
    headers = http.LOCATION(f"{request.scope.get('root_path', '')}/predict/{id_}")
    headers |= wanted.preferences.applied()
    if submitted.is_replay:
        headers |= http.IDEMPOTENCY_REPLAYED("true")
    ask_in = submitted.ask_in
    if seconds := wanted.wait(state["config"].timeout):
        try:
            prediction = await while_connected(request, wait_for_end(state, id_, seconds))
        except errors.StoreUnavailable:  # it is accepted all the same: say under which id
            return responses.accepted(id_, headers | responses.retry_after(ask_in))
        if not prediction.is_active:
            body = prediction.output.to_json() if prediction.output else b""
            return responses.ended(prediction, body, headers)
        ask_in = prediction.retry_after
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


async def read_prediction(
    request: Request, headers: Annotated[http.ReadHeaders, Header()]
) -> Response:
    """Read an accepted prediction: 200 done, 202 ask again, anything else will not succeed."""
    id_ = await path_id(request.path_params["prediction_id"])
    state, wait = app_state(request), headers.prefer.wait
    prediction = known(await state["predictions"].read(id_))
    if wait and prediction.is_active:
        prediction = await while_connected(request, wait_for_end(state, id_, wait))
    applied = http.Preferences(wait=wait).applied()
    if prediction.is_active:
        return responses.pending(prediction, applied)
    body = responses.done(id_, prediction.output) if prediction.output else b""
    return responses.ended(prediction, body, applied)


@predictions.get(
    "/status",
    response_model=schemas.PredictionStatus,
    responses=described(
        200,
        "Known, whatever became of it. `Retry-After` while it has not ended, then `Server-Timing`.",
        *(http.CACHE_CONTROL, http.RETRY_AFTER, http.SERVER_TIMING),
    ),
)
async def read_status(prediction: KnownPrediction, response: Response) -> Prediction:
    """How far a prediction is: 200 for every known one, whatever became of it."""
    response.headers.update(responses.progress(prediction))
    return prediction


@predictions.delete(
    "",
    status_code=204,
    response_description="Its input, its result and its events are gone.",
    responses=raises(errors.StillActive),
)
async def erase_prediction(id_: PathId, store: Store) -> None:
    """Remove the input, the result and the events of a prediction that has ended."""
    if not await store.erase(id_):
        raise errors.UnknownPrediction


@predictions.post(
    "/cancel",
    response_model_exclude_none=True,
    response_description="It will not be run, or was canceled before.",
    responses=described(
        202,
        "It runs; its worker has been told. The `note` says so where the model cannot be stopped.",
        model=schemas.PredictionCancellation,
    )
    | raises(errors.AlreadyEnded),
)
async def cancel_prediction(
    request: Request, id_: PathId, store: Store, response: Response
) -> schemas.PredictionCancellation:
    """End a prediction that waits or runs; then `GET /predict/{prediction_id}` responds 410."""
    outcome = known(await store.cancel(id_))
    is_told = outcome is Cancellation.TOLD
    response.status_code = 202 if is_told else 200
    is_stuck = is_told and not app_state(request)["model"].can_be_stopped
    note = _CANNOT_BE_STOPPED if is_stuck else None
    return schemas.PredictionCancellation(prediction_id=id_, status=outcome, note=note)


@predictions.get(
    "/events",
    response_class=Response,
    dependencies=[Depends(path_id)],
    responses=described(
        200,
        "`status` (`queued`, or `running` with the number of the try), `progress` and `output` as "
        "the model emits them, and `completed` with the output or the error; then the stream ends. "
        "It can be resumed, and read again for as long as the result is kept.",
        http.CACHE_CONTROL,
        content={"text/event-stream": {"example": EXAMPLE}},
    )
    | described(204, "It has ended, and there is nothing after `Last-Event-ID`.")
    | raises(errors.InvalidHeader),
)
async def read_events(
    request: Request, headers: Annotated[http.EventsHeaders, Header()]
) -> Response:
    """What happens to a prediction, as it happens: Server-Sent Events, until it has ended."""
    id_, state = await path_id(request.path_params["prediction_id"]), app_state(request)
    prediction, after = await known_prediction(request, id_), headers.last_event_id or ""
    if after and not prediction.is_active and not await state["predictions"].events(id_, after):
        return Response(status_code=204)  # a browser would come back for ever
    more = http.NO_STORE | {"X-Accel-Buffering": "no"}
    return EventSourceResponse(follow(state, id_, after), headers=more)


@predictions.get(
    "/webhook",
    response_model=schemas.PredictionWebhook,
    responses=described(200, "The webhook, and its attempts.", http.CACHE_CONTROL)
    | raises(*_NO_WEBHOOK),
)
async def read_webhook(id_: PathId, store: Store, response: Response) -> Webhook:
    """The attempts to deliver the webhook of a prediction, and the responses to them."""
    webhook = await store.webhook(id_)
    if webhook is None:
        raise errors.NoWebhook
    response.headers.update(http.NO_STORE)
    return webhook


@predictions.post(
    "/webhook",
    status_code=202,
    response_description="It is sent again.",
    responses=raises(*_NO_WEBHOOK, errors.StillActive),
)
async def send_webhook_again(id_: PathId, store: Store) -> schemas.PredictionRedelivery:
    """Send the webhook of a prediction that has ended once more, delivered or not."""
    if not await store.redeliver(id_):
        raise errors.NoWebhook
    return schemas.PredictionRedelivery(prediction_id=id_)


@health.head("/live", include_in_schema=False)
@health.get("/live")
async def live() -> schemas.Health:
    """Whether this process serves, whatever the store does: restart it if not."""
    return schemas.Health(status="live")


@health.head("/ready", include_in_schema=False)
@health.get("/ready", responses=raises(errors.StoreUnavailable))
async def ready(store: Store) -> schemas.Health:
    """Whether both kinds of prediction can be made: model loaded, store writable."""
    await store.check()
    return schemas.Health(status="ready")


def create_router(bodies: schemas.Typed) -> APIRouter:
    """The endpoints whose bodies depend on the model's types."""
    typed = APIRouter(route_class=http.DirectRoute, tags=["predictions"])

    async def body(_: bodies.request) -> None:  # type: ignore[name-defined]
        """Documents the body."""

    typed.post(
        "/predict",
        dependencies=[Depends(body)],
        responses=described(200, "The result.", *_ENDED, *_ACCEPTED, model=bodies.output)
        | described(
            202,
            "Accepted: the prediction is in the store, a worker will run it.",
            *(*_ACCEPTED, http.RETRY_AFTER),
            model=schemas.PredictionAccepted,
        )
        | raises(
            *(*errors.RequestError.__subclasses__(), *_FAILURES, errors.UnknownPrediction),
            *(errors.Overloaded, errors.StoreUnavailable),
            ended=(*_ENDED, *_ACCEPTED),
        ),
    )(predict)
    typed.get(
        "/predict/{prediction_id}",
        dependencies=[Depends(path_id)],
        responses=described(200, "It succeeded.", *_ENDED, model=bodies.done)
        | described(
            202,
            "It waits in the queue or runs: ask again.",
            *(http.RETRY_AFTER, http.CACHE_CONTROL, http.PREFERENCE_APPLIED),
            model=schemas.PredictionPending,
        )
        | _UNKNOWN
        | raises(*_FAILURES, ended=_ENDED),
    )(read_prediction)
    return typed
