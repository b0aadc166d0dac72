"""Handlers that turn every exception, the framework's own too, into `{"error": "…"}`."""

from typing import Any

from fastapi import Request, Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from predictor.api.responses import error_response, failed
from predictor.errors import PredictorError, UnknownPrediction


async def _predictor_error(_: Request, error: PredictorError) -> Response:
    return failed(error)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    match error.status_code:
        case 404:
            path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
            if request.method == "GET" and path.startswith("/predict/"):
                return failed(UnknownPrediction())  # with a slash or a line break, it is no id
            return error_response(404, "There is nothing at this path; see /docs.")
        case 405:
            allow = ", ".join(sorted(_methods(request)))
            message = f"{request.method} is not allowed here; use {allow}."
            return error_response(405, message, {"Allow": allow})
    return error_response(error.status_code, error.detail, error.headers)


def _methods(request: Request) -> set[str]:
    """All methods of the path (RFC 9110, 15.5.6); the framework names those of its first route."""
    found: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        route = context.original_route
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return found


async def _bug(request: Request, _: Exception) -> Response:
    # The middleware does not see this response.
    headers = {"X-Request-ID": request.scope.get("request_id", "")}
    return error_response(500, "Something went wrong here; the log says what.", headers)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    PredictorError: _predictor_error,
    HTTPException: _http_exception,
    Exception: _bug,
}
