"""What a route asks of its request: the parts it works with, the input, the mode."""

import asyncio
from typing import TYPE_CHECKING, TypedDict, cast

from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from predictor.api.schemas import PredictionRequest
from predictor.api.slots import Slots
from predictor.config import Config
from predictor.model import Model
from predictor.prediction import PredictionId, parse_id
from predictor.store.predictions import Predictions

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: Seconds that a body may take to arrive, and the bytes per second that a large one must come at.
_BODY_SECONDS, _BODY_PACE = 10.0, 1_000_000

_MODES = {"true": True, "false": False}


class State(TypedDict):
    """What the application holds while it serves."""

    config: Config
    model: Model
    slots: Slots
    predictions: Predictions


def state(request: Request) -> State:
    """The parts that this request is served with."""
    return cast("State", request.scope["state"])


def prediction_id(request: Request) -> PredictionId | None:
    """The id in the path; None where it cannot be one, and the store need not be asked."""
    return parse_id(request.path_params["prediction_id"])


def wants_async(request: Request) -> bool:
    """Whether `Async-Mode` says true; never a silent choice where it says something else."""
    values = {value.strip().lower() for value in request.headers.getlist("async-mode")}
    if not values:
        return False
    if len(values) > 1:
        raise HTTPException(400, "Header Async-Mode is given twice, with different values.")
    (value,) = values
    if value not in _MODES:
        raise HTTPException(400, f"Header Async-Mode must be true or false, not {value[:40]!r}.")
    return _MODES[value]


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


async def _read_body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(
        413,
        f"The body is larger than {limit} bytes (PREDICTOR_MAX_BODY).",
        {"Connection": "close"},
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS + limit / _BODY_PACE):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise HTTPException(
            408, "The body did not arrive in time; send it again.", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "The client left before the body was complete.") from None
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
