"""The endpoints, and their responses as OpenAPI describes them."""

from contextlib import suppress
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, params
from fastapi.sse import EventSourceResponse
from pydantic_core import from_json, to_json

from predictor import errors
from predictor.api import headers, queued, responses, schemas, sync
from predictor.api.events import EXAMPLE, follow, submit, wait_for_end, watch
from predictor.api.request import Given, PathId, WebhookId, read_input, while_connected
from predictor.api.responses import described, raises, visible
from predictor.api.state import app_state
from predictor.model.signature import Signature
from predictor.prediction import Job, Json, Output, Prediction, State, Webhook, parse_id

_UNKNOWN = raises(errors.UnknownPrediction, errors.StoreUnavailable)
_FAILURES = errors.PredictionError.__subclasses__()

#: Headers of a prediction that was accepted, of one that is active, and of one that has ended.
_ACCEPTED = (headers.LOCATION, headers.PREFERENCE_APPLIED, headers.IDEMPOTENCY_REPLAYED)
_QUEUED = (*_ACCEPTED, headers.RETRY_AFTER, headers.NO_WORKERS)
_PENDING = (headers.RETRY_AFTER, headers.CACHE_CONTROL)
_ENDED = (headers.SERVER_TIMING, headers.CACHE_CONTROL, headers.PREFERENCE_APPLIED)

#: The other response to a sync prediction, for `Accept: text/event-stream`.
_STREAM = {"text/event-stream": {"example": EXAMPLE.partition("id:")[0] + "\n"}}

predictions = APIRouter(
    prefix="/predict/{prediction_id}",
    tags=["predictions"],
    route_class=headers.DirectRoute,
    responses=_UNKNOWN,
)
watched = APIRouter(tags=["predictions"])
health = APIRouter(prefix="/health", tags=["health"])
operations = APIRouter(tags=["operations"])

_MOST_WATCHED = 300
_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_IDS = {"type": "array", "items": _ID, "minItems": 1, "maxItems": _MOST_WATCHED}


async def predict(request: Request, options: Given[headers.PredictHeaders]) -> Response:
    """Run the model on an input: at once, or later with the header `Async-Mode: true`."""
    value = await read_input(request)
    if options.is_queued:
        return await _queue(request, value, options)
    state, preferences = app_state(request), options.preferences
    room = queued if state["config"].sync == "queue" else sync
    if headers.accepts_events(request.headers.getlist("accept")):
        events = room.events(state, value, options)
        await while_connected(request, anext(events))
        return EventSourceResponse(events, headers=headers.STREAM | preferences.applied())
    outcome, more = await while_connected(request, room.run(state, value, options))
    more |= preferences.applied()
    if isinstance(outcome, Output):
        return responses.done(request, outcome, more, preferences)
    return await responses.failed(request, outcome, more)


async def _queue(request: Request, value: Json, options: headers.PredictHeaders) -> Response:
    """Accept the prediction; then wait for it, if asked to, and respond as a sync call would."""
    state, key, webhook = app_state(request), options.idempotency_key, options.webhook_url
    if webhook is not None:
        if not state["config"].signing_secrets:
            message = "Webhook-Url is refused: PREDICTOR_WEBHOOK_SECRETS is not set here."
            raise errors.WebhookRefused(message)
        from predictor.webhooks.target import check_target  # with httpx, which `app` may not need

        webhook = await check_target(webhook, state["config"].allowed_targets)
    if key and state["owner"]:
        key = f"{state['owner']}\0{key}"  # of two names, the same key is not the same
    digests = _digests(key, value, webhook or "") if key else ()
    job = Job(value, options.cancel_after, webhook, *digests)
    seconds = options.wait(state["config"].timeout + queued.MARGIN)
    submitted, expected = await submit(state, job, is_awaited=seconds > 0)
    id_, root_path = submitted.id, request.scope.get("root_path", "")
    more = headers.LOCATION(f"{root_path}/predict/{id_}") | options.preferences.applied()
    if submitted.is_replay:
        more |= headers.IDEMPOTENCY_REPLAYED("true")
    prediction = None
    if seconds:
        with suppress(errors.StoreUnavailable):  # it is accepted all the same
            wait = wait_for_end(state, id_, seconds, expected)
            prediction = await while_connected(request, wait)
    if prediction and not prediction.is_active:
        return responses.outcome(request, prediction, more, options.preferences)
    more |= headers.RETRY_AFTER((prediction or submitted).retry_after)
    if not submitted.workers and (not prediction or prediction.state is State.QUEUED):
        more |= headers.NO_WORKERS()
    message = "Request received. Processing asynchronously."
    return responses.json(to_json({"message": message, "prediction_id": id_}), 202, more)


def _digests(key: str, value: Json, webhook: str) -> list[str]:
    """Of the key, and of the request that it is used with."""
    is_text = value[:1] == b'"' and value[1:7] != b"\\u0000"  # no text that begins like the rest
    text = from_json(value) if is_text else f"\0{value.decode()}"
    return [sha256(each.encode()).hexdigest() for each in (key, f"{key}\0{text}\0{webhook}")]


async def read_prediction(
    request: Request, prediction_id: PathId, options: Given[headers.ReadHeaders]
) -> Response:
    """Read an accepted prediction: 200 done, 202 ask again, anything else will not succeed."""
    state, preferences = app_state(request), headers.Preferences.parse(options.prefer)
    if wait := preferences.wait:
        prediction = await while_connected(request, wait_for_end(state, prediction_id, wait))
    else:
        prediction = await state["predictions"].read(prediction_id)
    more = preferences._replace(respond_async=False).applied()
    return responses.outcome(request, prediction, more, preferences, prediction_id)


@predictions.get(
    "/status",
    response_model=schemas.PredictionStatus,
    responses=described(
        200,
        "The status. `Retry-After` until it has ended, then `Server-Timing`.",
        *(*_PENDING, headers.SERVER_TIMING),
    ),
)
async def read_status(request: Request, prediction_id: PathId, response: Response) -> Prediction:
    """The status of a prediction: 200 for every known one, failed or not."""
    state = app_state(request)
    prediction = await state["predictions"].look(prediction_id)
    response.headers.update(responses.progress(prediction))
    return visible(state, prediction)


@predictions.delete(
    "",
    status_code=204,
    response_description="Its input, its result and its events are gone.",
    responses=raises(errors.StillActive),
)
async def erase_prediction(request: Request, prediction_id: PathId) -> None:
    """Remove the input, the result and the events of a prediction that has ended."""
    await app_state(request)["predictions"].erase(prediction_id)


@predictions.post(
    "/cancel",
    response_model_exclude_none=True,
    response_description="It will not be run, or was canceled before.",
    responses=described(
        202,
        "It is running; its worker ends it. A `note` says if the model cannot be stopped.",
        model=schemas.PredictionCancellation,
    )
    | raises(errors.AlreadyEnded),
)
async def cancel_prediction(
    request: Request, prediction_id: PathId, response: Response
) -> schemas.PredictionCancellation:
    """End a queued or running prediction; then `GET /predict/{prediction_id}` responds 410."""
    state = app_state(request)
    outcome = schemas.PredictionCancellation(prediction_id=prediction_id, status="canceled")
    if await state["predictions"].cancel(prediction_id) is State.RUNNING:
        outcome.status, outcome.note = "canceling", state["model"].cancel_note or None
        response.status_code = 202
    return outcome


@predictions.get(
    "/events",
    response_class=Response,
    responses=described(
        200,
        "`status` (`queued`, or `running` with the number of the try), `progress` and `output` as "
        "the model emits them, and `completed` with the output or the error; then the stream ends. "
        "It can be resumed, and read again for as long as the result is kept.",
        *(headers.CACHE_CONTROL, headers.PREFERENCE_APPLIED),
        content={"text/event-stream": {"example": EXAMPLE}},
    )
    | described(204, "It has ended, and there is nothing after `Last-Event-ID`.")
    | raises(errors.InvalidHeader),
)
async def read_events(
    request: Request, prediction_id: PathId, options: Given[headers.EventsHeaders]
) -> Response:
    """The events of a prediction, as they happen (Server-Sent Events), until it has ended."""
    state, after = app_state(request), options.last_event_id or ""
    store, id_ = state["predictions"], prediction_id
    prediction = await store.look(id_)
    if after and not prediction.is_active and not await store.events(id_, after):
        return Response(status_code=204)  # else a browser would reconnect for ever
    is_minimal = headers.Preferences.parse(options.prefer).is_minimal
    more = headers.STREAM | headers.Preferences(is_minimal=is_minimal).applied()
    return EventSourceResponse(follow(state, id_, after, is_minimal=is_minimal), headers=more)


@watched.get(
    "/events",
    response_class=Response,
    openapi_extra={"parameters": [{"name": "id", "in": "query", "required": True, "schema": _IDS}]},
    responses=described(
        200,
        "`status`: the status of each prediction, and each change of it; that of one that is not "
        "known is `unknown`. The stream ends when all have ended.",
        headers.CACHE_CONTROL,
        content={"text/event-stream": {"example": 'event: status\ndata: {"prediction_id":…}\n\n'}},
    )
    | raises(errors.InvalidQuery),
)
async def watch_predictions(request: Request) -> Response:
    """Follow many predictions over one stream (Server-Sent Events): `/events?id=…&id=…`."""
    ids = request.query_params.getlist("id")
    if not 0 < len(ids) <= _MOST_WATCHED:
        raise errors.InvalidQuery
    state = app_state(request)
    known = [parse_id(id_, error=errors.InvalidQuery) for id_ in dict.fromkeys(ids)]
    return EventSourceResponse(watch(state, known), headers=headers.STREAM)


@predictions.get(
    "/webhook",
    response_model=schemas.PredictionWebhook,
    responses=described(200, schemas.PredictionWebhook, headers.CACHE_CONTROL)
    | raises(errors.NoWebhook),
)
async def read_webhook(request: Request, prediction_id: WebhookId, response: Response) -> Webhook:
    """The attempts to deliver the webhook of a prediction, and the responses to them."""
    response.headers.update(headers.NO_STORE)
    return await app_state(request)["predictions"].webhook(prediction_id)


@predictions.post(
    "/webhook",
    status_code=202,
    response_description="It is sent again.",
    responses=raises(errors.NoWebhook, errors.StillActive),
)
async def send_webhook_again(
    request: Request, prediction_id: WebhookId
) -> schemas.PredictionRedelivery:
    """Send the webhook of a prediction that has ended once more, delivered or not."""
    await app_state(request)["predictions"].redeliver(prediction_id)
    return schemas.PredictionRedelivery(prediction_id=prediction_id)


@health.head("/live", include_in_schema=False)
@health.get("/live")
async def live() -> schemas.Health:
    """Whether this process serves, whatever the store does: restart it if not."""
    return schemas.Health(status="live")


@health.head("/ready", include_in_schema=False)
@health.get("/ready", responses=raises(errors.StoreUnavailable))
async def ready(request: Request) -> schemas.Health:
    """Whether both kinds of prediction can be made: model loaded, store writable."""
    state = app_state(request)
    if state["config"].sync == "api" and not state["model"].is_ready:
        raise errors.Overloaded("The model is still loading.")
    await state["predictions"].check()
    return schemas.Health(status="ready")


@health.head("/workers", include_in_schema=False)
@health.get("/workers", responses=raises(errors.StoreUnavailable))
async def workers(request: Request) -> schemas.Workers:
    """Whether a worker is alive, and how many predictions all of them run at once."""
    alive = (await app_state(request)["metrics"].read()).workers
    if not alive:
        text = "No worker is alive; start one with: arq predictor.worker.Settings"
        raise errors.Overloaded(text, retry_after=10)
    return schemas.Workers(workers=len(alive), slots=sum(each.slots for each in alive))


@operations.get(
    "/metrics",
    response_class=Response,
    responses=described(
        200, "The metrics.", content={"text/plain": {"example": "predictor_queue_depth 0.0\n"}}
    )
    | raises(errors.Forbidden, errors.StoreUnavailable),
)
async def metrics(request: Request) -> Response:
    """Metrics of the whole service, whichever process is asked, in Prometheus' text format."""
    from predictor.api.metrics import CONTENT_TYPE, render  # a library that few apis need

    state = app_state(request)
    text = render(await state["metrics"].read(), state["config"])
    return Response(text, media_type=CONTENT_TYPE)


def add_predict(app: FastAPI, signature: Signature, secured: list[params.Depends]) -> None:
    """Add the endpoints whose bodies depend on the model's types, behind `secured`.

    To the application itself: an included router is matched twice.
    """
    takes, gives = signature.takes.type, signature.gives.type
    body_type, output, done, webhook = schemas.bodies(takes, gives)
    app.router.route_class = headers.DirectRoute

    async def body(_: body_type) -> None:  # type: ignore[valid-type]
        """Documents the body."""

    _describe_webhook(app, webhook)
    file = {headers.FILE: {"schema": {"type": "string", "format": "binary"}}}
    files = file | {"*/*": file[headers.FILE]} if signature.gives.is_bytes else {}
    ended = (*_ENDED, headers.VARY) if files else _ENDED
    app.post(
        "/predict",
        tags=["predictions"],
        dependencies=[*secured, Depends(body)],
        openapi_extra={"requestBody": {"content": file}} if signature.takes.is_bytes else None,
        responses=described(200, output, *ended, *_ACCEPTED, content=_STREAM | files)
        | described(202, schemas.PredictionAccepted, *_QUEUED)
        | raises(
            *(*errors.RequestError.__subclasses__(), *_FAILURES, errors.UnknownPrediction),
            *(errors.Overloaded, errors.StoreUnavailable),
            ended=(*_ENDED, *_ACCEPTED),
        ),
    )(predict)
    app.get(
        "/predict/{prediction_id}",
        tags=["predictions"],
        dependencies=secured,
        responses=described(200, done, *ended, content=files)
        | described(202, schemas.PredictionPending, *_PENDING, headers.PREFERENCE_APPLIED)
        | _UNKNOWN
        | raises(*_FAILURES, ended=_ENDED),
    )(read_prediction)


def _describe_webhook(app: FastAPI, body: Any) -> None:
    @app.webhooks.post(
        "prediction",
        tags=["webhooks"],
        operation_id="prediction_ended",
        response_description="Delivered.",
        responses={"default": {"description": "Tried again, for a day; after a 410, never."}},
    )
    async def prediction_ended(_: body) -> None:
        """Sent to the `Webhook-Url` of a prediction when it has ended, whatever came of it.

        Each attempt has the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`
        (Standard Webhooks).
        """
