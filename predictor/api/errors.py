"""Every error in one shape, `{"error": "…"}`, and the code that each kind has."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from predictor import errors

logger = logging.getLogger(__name__)

#: The nearest base class in this table gives an error's status.
STATUS: dict[type[errors.PredictorError], HTTPStatus] = {
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TimedOut: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Expired: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Canceled: HTTPStatus.GONE,
    errors.AlreadyEnded: HTTPStatus.CONFLICT,
    errors.StillActive: HTTPStatus.CONFLICT,
    errors.KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.WebhookRefused: HTTPStatus.BAD_REQUEST,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PredictionError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.PredictorError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def status_of(error: errors.PredictorError) -> HTTPStatus:
    """The status code that says what `error` is."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when it is worth asking again."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None, **more: str
) -> Response:
    """An answer that says what went wrong."""
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = retry_after(1) | dict(headers or {})
    return Response(to_json({"error": message} | more), status, headers, "application/json")


def unknown_id() -> Response:
    """The answer for an id that the store does not know, and for what cannot be an id."""
    return error_response(404, "Prediction ID not found.", {"Cache-Control": "no-store"})


def no_webhook() -> Response:
    """The answer where nobody is told of a prediction's end."""
    return error_response(404, "There is no webhook for this prediction ID.")


def install(app: FastAPI) -> None:
    """Answer every error of `app`, the framework's own too, in the one shape."""
    app.add_exception_handler(errors.PredictorError, _predictor_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _bug)


def answer(error: errors.PredictorError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that came to `error`."""
    if isinstance(error, errors.ModelFailed):
        logger.error("the model failed", exc_info=error)
    if isinstance(error, errors.Overloaded):
        headers = retry_after(error.retry_after)
    return error_response(status_of(error), error.message, headers)


async def _predictor_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.PredictorError)  # noqa: S101 (for the type checker)
    return answer(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (for the type checker)
    headers = dict(error.headers or {})
    message = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if request.method == "GET" and path.startswith("/predict/"):
            return unknown_id()  # with a slash or a line break in it, no route has seen it
        message = "There is nothing at this path; see /docs."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.method} is not allowed here; use {headers.get('Allow', 'another')}."
    return error_response(error.status_code, message, headers)


async def _bug(request: Request, _: Exception) -> Response:
    # Not for the middleware any more: this is answered outside of it.
    headers = {"X-Request-ID": request.scope.get("request_id", "")}
    return error_response(500, "Something went wrong here; the log says what.", headers)
