"""Responses to predictions and errors, and their description in OpenAPI."""

import base64
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.routing import iter_route_contexts
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from predictor import errors
from predictor.api import headers as declared
from predictor.api.headers import Header, Preferences
from predictor.api.schemas import Error
from predictor.api.state import AppState, app_state
from predictor.prediction import Json, Output, Prediction, State, encode, splice

logger = logging.getLogger(__name__)

#: Responses by their status, as FastAPI's parameter `responses` takes them.
Described = dict[int | str, dict[str, Any]]
Headers = dict[str, str]
_AnyHeaders = Mapping[str, str] | None
Outcome = Output | errors.PredictorError
Ended = tuple[Outcome, Headers]


def json(body: bytes, status: int = 200, headers: _AnyHeaders = None) -> Response:
    return Response(body, status, headers, "application/json")


def done(
    request: Request, output: Output, headers: Headers, preferences: Preferences, id_: str = ""
) -> Response:
    """An output, behind its prediction's id if there is one; as bytes where these are preferred."""
    if app_state(request)["model"].signature.gives.is_bytes:
        headers = headers | declared.VARY()
        media_type = declared.file_type(request.headers.getlist("accept"))
        if media_type and output.result[:1] == b'"':
            with suppress(ValueError):  # a worker with another model gave it
                content = base64.b64decode(output.result[1:-1], validate=True)
                return Response(content, 200, headers, media_type)
    body = output.to_json(is_minimal=preferences.is_minimal)
    if id_:
        body = splice(prediction_id=encode(id_), output=body)
    return json(body, 200, headers)


def outcome(
    request: Request, prediction: Prediction, more: Headers, preferences: Preferences, id_: str = ""
) -> Response:
    """The output of a prediction, else why there is none."""
    headers = progress(prediction) | more
    if prediction.is_active:
        return error_response(202, "Prediction is still being processed.", headers)
    if prediction.output:
        return done(request, prediction.output, headers, preferences, id_)
    error = prediction.error or errors.Unreadable()
    return error_response(error.status, str(error), headers, prediction_id=prediction.id)


def completed(outcome: Outcome, *, is_minimal: bool) -> Json:
    """The data of the last event of a prediction."""
    if isinstance(outcome, Output):
        output = outcome.to_json(is_minimal=is_minimal)
        return splice(status=encode(State.SUCCEEDED), output=output)
    return encode({"status": State.of(outcome), "error": str(outcome), "code": outcome.code})


def error_response(status: int, message: str, headers: _AnyHeaders = None, **more: str) -> Response:
    """Every error has this shape."""
    for header in declared.BY_STATUS.get(status, ()):
        headers = header() | dict(headers or {})
    return json(to_json({"error": message} | more), status, headers)


async def failed(
    request: Request, error: errors.PredictorError, headers: _AnyHeaders = None
) -> Response:
    """The response to a request that raised `error`."""
    if isinstance(error, errors.ModelFailed):
        logger.error("the model failed", exc_info=error)
    if isinstance(error, errors.Overloaded):
        headers = more = declared.RETRY_AFTER(error.retry_after)
    if isinstance(error, errors.TooManyRequests):
        config, left = app_state(request)["config"], f"r=0;t={math.ceil(error.retry_after)}"
        policy = f'q={config.open};qu="concurrent-requests"'
        if error.reason == "rate":
            policy = f"q={config.burst};w={math.ceil(config.burst / config.rate)}"
        more |= declared.RATE_LIMIT_POLICY(f'"{error.reason}";{policy}')
        more |= declared.RATE_LIMIT(f'"{error.reason}";{left}')
    return error_response(error.status, str(error), headers)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if request.method == "GET" and path.startswith("/predict/"):
            return await failed(request, errors.UnknownPrediction())  # an id with a slash
        return error_response(404, "There is nothing at this path; see /docs.")
    if error.status_code == 405:
        allow = ", ".join(sorted(_methods(request))) or "GET, HEAD"  # of a file of the page
        message = f"{request.method} is not allowed here; use {allow}."
        return error_response(405, message, {"Allow": allow})
    return error_response(error.status_code, error.detail, error.headers)


def _methods(request: Request) -> set[str]:
    """All methods of the path (RFC 9110, 15.5.6); the framework names those of its first route."""
    routes = (context.original_route for context in iter_route_contexts(request.app.routes))
    return {
        method
        for route in routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _bug(_: Request, __: Exception) -> Response:
    return error_response(500, "Something went wrong here; the log says what.")


EXCEPTION_HANDLERS: dict[Any, Any] = {
    errors.PredictorError: failed,
    HTTPException: _http_exception,
    Exception: _bug,
}


def progress(prediction: Prediction) -> Headers:
    """When to ask again; once the prediction has ended, how long it took."""
    if prediction.is_active:
        return declared.RETRY_AFTER(prediction.retry_after) | declared.NO_STORE
    finished = prediction.finished or prediction.created
    started = prediction.started or finished
    queue, run = max(0.0, started - prediction.created), max(0.0, finished - started)
    return declared.SERVER_TIMING(queue, run) | declared.NO_STORE


def visible(state: AppState, prediction: Prediction) -> Prediction:
    """Without its place in the queue if there are several names: that tells of the others."""
    if state["has_several_names"]:
        return replace(prediction, position=None, estimated_wait=None)
    return prediction


def described(status: int, about: Any, *headers: Header, **more: Any) -> Described:
    """A response that may have `headers`. `about`: its description, or a model with a docstring."""
    documented = {
        name: {"description": meaning, "schema": {"type": "string", "pattern": pattern}}
        for name, meaning, pattern, _ in headers
    }
    body = {"description": about} if isinstance(about, str) else {"model": about}
    return {status: {"description": about.__doc__, "headers": documented} | body | more}


def raises(*kinds: type[errors.PredictorError], ended: Sequence[Header] = ()) -> Described:
    """The responses to these errors; `ended`: headers where a prediction ended with one."""
    found: Described = {}
    for status in sorted({kind.status for kind in kinds}):
        here = [kind for kind in kinds if kind.status == status]
        examples = {kind.__name__: {"value": {"error": str(kind())}} for kind in here}
        is_end = any(issubclass(kind, errors.PredictionError) for kind in here)
        headers = (*declared.BY_STATUS.get(status, ()), *(ended if is_end else ()))
        content = {"application/json": {"examples": examples}}
        phrase = f"{HTTPStatus(status).phrase}."
        found |= described(status, phrase, *headers, model=Error, content=content)
    return found
