"""What responses of the api mean, and when a request can be sent again."""

import contextlib
import math
from typing import Any

import httpx
from pydantic_core import from_json

from predictor import errors
from predictor.errors import PredictorError, Unreachable

_ALIKE = 20  # characters that a message begins with as the default of its class does
#: The classes of other messages, where that is not the first one with the status.
_USUAL = {422: errors.InvalidInput, 500: errors.ModelFailed, 503: errors.Overloaded}

Body = dict[str, Any]


def json_object(data: bytes) -> Body:
    """`data` as a JSON object; an empty one if it is none."""
    body: Body = {}
    with contextlib.suppress(ValueError, TypeError):
        body |= from_json(data)
    return body


def error_of(status: int, message: str) -> PredictorError:
    """The error of the service with this status and message."""
    every = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in every if issubclass(kind, PredictorError) and kind.status == status]
    kinds = kinds or [errors.RequestError]
    alike = [kind for kind in kinds if message.startswith(str(kind())[:_ALIKE])]
    kind: type[PredictorError] = [*alike, _USUAL.get(status, kinds[0])][0]
    return kind(message)


def read(response: httpx.Response, field: str) -> Body:
    """The body, if it is pending or has `field`. Raises what other responses mean.

    `retry_after` of what is raised is infinite if no retry is safe or helps.
    """
    status, body = response.status_code, json_object(response.content)
    error = body.get("error")
    if response.is_success and (field in body or error):
        return body
    url = response.url.copy_with(userinfo=b"")
    message = str(error or f"{url}: {status} {response.reason_phrase}")
    if status in {429, 503}:
        seconds = response.headers.get("Retry-After", "")
        refusal = error_of(status, message) if error else Unreachable(message)
        refusal.retry_after = float(seconds) if seconds.isdecimal() else 1
        raise refusal
    is_end = error and (field == "result" or "prediction_id" in body)
    is_end = is_end or error == str(errors.ModelFailed())  # amid the checks of an input
    if status >= 500 and not (status in {500, 504} and is_end):
        raise Unreachable(message, retry_after=math.inf if field == "result" else 0)
    if not error or (status == 404 and url.path.endswith("/predict")):
        raise Unreachable(f"{message} (is that the api?)")
    raise error_of(status, message)
