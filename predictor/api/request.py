"""A request: its parameters, its body, up to a limit, and the connection of its client."""

import asyncio
import base64
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Path, Request
from pydantic_core import from_json

from predictor import errors
from predictor.api.headers import FILE
from predictor.api.limits import Bodies
from predictor.api.state import app_state
from predictor.prediction import Json, PredictionId, encode, parse_id

T = TypeVar("T")
Given = Annotated[T, Header()]

_PATH = Path(
    description="The `prediction_id` of the 202 that accepted it.",
    json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"},
)
_Id = Annotated[str, _PATH]


async def _own_id(request: Request, prediction_id: _Id) -> PredictionId:
    return parse_id(prediction_id, app_state(request)["owner"])


async def _own_webhook_id(request: Request, prediction_id: _Id) -> PredictionId:
    return parse_id(prediction_id, app_state(request)["owner"], errors.NoWebhook)


#: What cannot be an id of the sender's is refused without asking the store.
PathId = Annotated[PredictionId, Depends(_own_id)]
WebhookId = Annotated[PredictionId, Depends(_own_webhook_id)]

#: A body must arrive within so many seconds, and one more for each so many bytes of the limit.
_SECONDS, _BYTES_PER_SECOND = 10.0, 1_000_000
_LATE = "The body is late."
_WATCH_AFTER = 0.05  # seconds of work until it is watched whether the client is there
_MAX_EXCESS = 16 * 2**20  # bytes dropped past the limit: many clients send all before they read


async def read_input(request: Request) -> Json:
    """The input in the body, as JSON, that the model takes. Raises RequestError and InvalidInput.

    FastAPI's own reader accepts lone surrogates and UTF-16, and takes twice as long.
    """
    # In one pass; `request.headers` takes one for each name. Of two of a name the first counts.
    state, given = app_state(request), dict(reversed(request.scope["headers"]))
    is_file = _is_file(given, may_be=state["model"].signature.takes.is_bytes)
    body = await _read(request, given, state["config"].max_body, state["bodies"])
    try:
        if is_file:
            value = Json(b'"%b"' % base64.b64encode(body))
        else:
            value = encode(_member(from_json(body, allow_inf_nan=False)))
    except ValueError as error:
        raise errors.InvalidJson(f"The body is not valid JSON: {error}.") from None
    state["model"].signature.takes.read(value)
    return value


def _is_file(given: dict[bytes, bytes], *, may_be: bool) -> bool:
    """Whether the body is the input itself, in bytes, not JSON. Raises UnsupportedMediaType."""
    if b"content-encoding" in given:
        raise errors.UnsupportedMediaType("The body must be sent without Content-Encoding.")
    media_type = given.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return False
    if not may_be:
        raise errors.UnsupportedMediaType
    is_form = media_type.startswith(("application/x-www-form-urlencoded", "multipart/"))
    # Browsers send what follows from pages of any origin, without asking first (CORS).
    is_unasked = media_type == "text/plain" and b"origin" in given
    if is_form or is_unasked or "/" not in media_type or media_type == "text/json":
        default = str(errors.UnsupportedMediaType()).rstrip(".")
        raise errors.UnsupportedMediaType(f"{default}; or the bytes themselves, as {FILE}.")
    return True


def _member(body: Any) -> Any:
    """The input in a body. Raises InvalidBody."""
    if not isinstance(body, dict):
        raise errors.InvalidBody('The body must be an object, like {"input": "…"}.')
    problems = [] if "input" in body else ["Field 'input' is missing."]
    unknown = [name for name in body if name != "input"][:5]
    problems += [f"Field '{name[:100]}' is not known; send only 'input'." for name in unknown]
    if problems:
        raise errors.InvalidBody(" ".join(problems))
    return body["input"]


async def _read(request: Request, given: dict[bytes, bytes], limit: int, bodies: Bodies) -> bytes:
    length = int(given.get(b"content-length", 0))  # checked by the server
    if length > limit + _MAX_EXCESS or (length > limit and b"expect" in given):
        raise _too_large(limit)
    body: list[bytes] = []
    size, held, is_whole = 0, 0, False
    caller: Any = asyncio.current_task()
    seconds = _SECONDS + limit / _BYTES_PER_SECOND
    # asyncio.timeout would take 4 % of a sync request.
    timer = asyncio.get_running_loop().call_later(seconds, caller.cancel, _LATE)
    try:
        while not is_whole and size <= limit + _MAX_EXCESS:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise errors.ClientDisconnected
            is_whole = not message.get("more_body")
            body.append(message.get("body", b""))
            size += len(body[-1])
            if size > limit:
                body.clear()
            elif not is_whole:
                bodies.begin(len(body[-1]))
                held += len(body[-1])
    except asyncio.CancelledError as error:
        if error.args != (_LATE,):
            raise
        caller.uncancel()
        raise errors.BodyTimeout from None
    finally:
        timer.cancel()
        if held:
            bodies.end(held)
    if size > limit:
        raise _too_large(limit)
    return b"".join(body)


def _too_large(limit: int) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(f"The body is larger than {limit} bytes (PREDICTOR_MAX_BODY).")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The outcome of `work`, which is canceled if the client disconnects. Raises its errors.

    Raises Overloaded if the server stops, and waits no longer. The connection is watched from
    _WATCH_AFTER on: most work is done by then.
    """
    caller: Any = asyncio.current_task()
    watch: asyncio.Task[None] | None = None

    async def cancel_when_disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        caller.cancel()

    def begin() -> None:
        nonlocal watch
        watch = asyncio.create_task(cancel_when_disconnected())

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, begin)
    try:
        return await work
    except asyncio.CancelledError:
        caller.uncancel()
        if watch and watch.done():
            raise errors.ClientDisconnected from None
        message = "The service stops before this has ended; send it again."
        raise errors.Overloaded(message) from None
    finally:
        timer.cancel()
        if watch:
            watch.cancel()
