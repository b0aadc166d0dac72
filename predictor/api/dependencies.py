"""What a route asks of its request: the parts it works with, the input, whether it is awaited."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from predictor.api.schemas import PredictionRequest
from predictor.api.slots import Slots
from predictor.config import Config
from predictor.errors import WebhookRefused
from predictor.model.model import Model
from predictor.prediction import Prediction, PredictionId, parse_id
from predictor.store.news import News
from predictor.store.predictions import Predictions
from predictor.webhooks.allowlist import Allowed
from predictor.webhooks.target import check_target

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: Seconds after which somebody who waits looks again though there was no news.
LOOK_EVERY = 5.0

#: Seconds that a body may take to arrive, and the bytes per second that a large one must come at.
_BODY_SECONDS, _BODY_PACE = 10.0, 1_000_000

#: Bytes past the limit that are read all the same: a client that cannot send to the end often does
#: not see the answer either.
_LINGER = 16 * 2**20

T = TypeVar("T")


class State(TypedDict):
    """What the application holds while it serves."""

    config: Config
    model: Model
    slots: Slots
    predictions: Predictions
    news: News
    allowed: Allowed


def state(request: Request) -> State:
    """The parts that this request is served with."""
    return cast("State", request.scope["state"])


def prediction_id(request: Request) -> PredictionId | None:
    """The id in the path; None where it cannot be one, and the store need not be asked."""
    return parse_id(request.path_params["prediction_id"])


async def known_prediction(request: Request) -> Prediction | None:
    """The prediction in the path, as it is now; None if there is none."""
    id_ = prediction_id(request)
    return await state(request)["predictions"].look(id_) if id_ else None


async def read_input(request: Request) -> str:
    """The input that the body carries.

    Answers 413, 415, 400 where it is not JSON, and 422 where it is JSON of another shape. Read here
    and not by FastAPI, whose reader knows neither the limit in our shape nor lone surrogates, and
    costs twice as much.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(
            415, "Send the body as JSON, with the header Content-Type: application/json."
        )
    body = await _read_body(request, state(request)["config"].max_body)
    try:
        return PredictionRequest.model_validate_json(body).input
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        if problems[0]["type"] == "json_invalid":
            reason = problems[0]["msg"].removeprefix("Invalid JSON: ")
            raise HTTPException(400, f"The body is not valid JSON: {reason}.") from None
        raise HTTPException(422, " ".join(map(_sentence, problems))) from None


async def accept_webhook(request: Request, url: str) -> str:
    """The URL to tell, in its one spelling. Raises WebhookRefused."""
    parts = state(request)
    if not parts["config"].signing_secrets:
        raise WebhookRefused("Webhook-Url is refused: PREDICTOR_WEBHOOK_SECRETS is not set here.")
    return await check_target(url, parts["allowed"])


async def _read_body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(
        413,
        f"The body is larger than {limit} bytes (PREDICTOR_MAX_BODY).",
        {"Connection": "close"},
    )
    declared = request.headers.get("content-length", "")
    length = int(declared[:20]) if declared.isdecimal() else 0
    if length > limit + _LINGER or (length > limit and "expect" in request.headers):
        raise too_large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(_BODY_SECONDS + limit / _BODY_PACE):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit + _LINGER:
                    raise too_large
                if size <= limit:
                    body += chunk
    except TimeoutError:
        raise HTTPException(
            408, "The body did not arrive in time; send it again.", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "The client left before the body was complete.") from None
    if size > limit:
        raise too_large
    return bytes(body)


def _sentence(problem: "ErrorDetails") -> str:
    """One line about one field: its name, what is wrong, what to do."""
    field = ".".join(map(str, problem["loc"]))[:100]
    match problem["type"]:
        case "missing":
            return f"Field '{field}' is missing."
        case "extra_forbidden":
            return f"Field '{field}' is not known; send only 'input'."
        case "string_type":
            return f"Field '{field}' must be a string."
        case "model_type":
            return 'The body must be an object, like {"input": "…"}.'
    return f"Field '{field}': {problem['msg']}."


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The outcome of `work`, which is canceled if the client hangs up meanwhile."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "The client left before the answer.")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def wait_for_end(parts: State, id_: PredictionId, seconds: float) -> Prediction | None:
    """The prediction as soon as it has ended, or as it is after so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    async with parts["news"].about(id_, only_end=True) as event:
        while True:
            event.clear()
            prediction = await parts["predictions"].look(id_)
            left = deadline - asyncio.get_running_loop().time()
            if prediction is None or not prediction.is_active:
                return await parts["predictions"].read(id_) if prediction else None
            if left <= 0 or parts["news"].is_over:
                return prediction
            with contextlib.suppress(TimeoutError):
                # News can get lost while the store is away; what expires in the queue makes none.
                pause = min(left, LOOK_EVERY, (prediction.expires_in or LOOK_EVERY) + 0.01)
                await asyncio.wait_for(event.wait(), pause)
