"""A client for asyncio. It sends requests again where that is safe and may help."""

import asyncio
import logging
import math
import os
import random
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Any, Literal, NamedTuple, TypedDict, cast
from urllib.parse import quote, urlsplit

import httpx
from httpx_sse import EventSource
from pydantic_core import from_json, to_json

from predictor import errors

logger = logging.getLogger(__name__)

_TIMEOUT = 20.0  # seconds, on top of the time that the api is asked to hold a request
_HOLD = 30  # seconds that it is asked to: proxies cut connections after a minute
_LARGE = 10 * 2**20  # bytes: PREDICTOR_MAX_BODY, unless it is set
_ALIKE = 20  # characters that a message begins with as the default of its class does
#: The classes of other messages, where that is not the first one with the status.
_USUAL = {422: errors.InvalidInput, 500: errors.ModelFailed, 503: errors.Overloaded}

Body = dict[str, Any]


class Event(NamedTuple):
    kind: str  # status, progress, output; at last completed
    data: Any
    id: str = ""


class Status(TypedDict):
    """Everything known of a prediction, except its output. Times are in RFC 3339 format."""

    prediction_id: str
    status: Literal["queued", "running", "succeeded", "failed", "canceled", "timed_out"]
    position: int | None  # 1 is the next to run; None unless it waits
    estimated_start: str | None
    created: str
    started: str | None
    finished: str | None
    tries: int  # how often it was started, without what a stop of its worker returned
    model: str | None
    model_version: str | None
    progress: dict[str, Any] | None  # `fraction`, from 0 to 1, and `message`
    error: str | None  # why it ended without an output


class AsyncClient(AbstractAsyncContextManager["AsyncClient"]):
    """The API at one address: an async context manager, which tasks may share.

    Raises RequestError where the API refuses a request; Overloaded, StoreUnavailable or
    TooManyRequests where it would take it later, but not within `retry_for`; and Unreachable.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 300,
        retry_for: float = 30,
    ) -> None:
        """`url`, `api_key`: unless PREDICTOR_URL and PREDICTOR_API_KEY are set, port 8080 of this
        machine, and none. `timeout`: seconds that `predict` waits. `retry_for`: seconds for which
        requests are sent again.
        """
        url = url or os.environ.get("PREDICTOR_URL") or "http://127.0.0.1:8080"
        key = os.environ.get("PREDICTOR_API_KEY", "") if api_key is None else api_key
        headers = _checked(Authorization=f"Bearer {key.strip()}" if key else None)
        try:
            scheme, _, _ = urlsplit(url).scheme, urlsplit(url).port, httpx.URL(url)
        except (ValueError, httpx.InvalidURL) as error:
            raise errors.RequestError(f"The URL of the API cannot be used: {error}.") from None
        self.address = url.rpartition("//")[2].rpartition("@")[2]  # without a password
        # The certificates of all authorities take longer to read than most responses.
        verify = scheme == "https" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        options: Any = {"base_url": url, "limits": httpx.Limits(), "verify": verify}
        try:
            #: Sends requests of your own, to paths such as /metrics.
            self.http = httpx.AsyncClient(headers=headers, timeout=_TIMEOUT, **options)
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            text = "The proxy or the certificates that the environment names cannot be used"
            reason = "" if isinstance(error, httpx.InvalidURL) else f": {error}"  # with a secret
            raise errors.RequestError(f"{text}{reason}") from None
        self._timeout, self._retry_for = timeout, retry_for
        self._succeeded, self._is_failing = 0.0, False  # when a request last succeeded

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def predict(self, input: Any, *, cancel_after: float | None = None) -> Any:
        """The result for an input: any JSON value, or bytes, which are sent as a file.

        Runs at once, and is not retried once it may have run. `cancel_after`: seconds that it may
        take. Raises InvalidInput, ModelFailed, TimedOut, or another PredictionError.
        """
        options = _request(input, cancel_after, Prefer="return=minimal")
        _, body = await self._send("POST", "", "result", hold=self._timeout, **options)
        return body["result"]

    async def submit(
        self,
        input: Any,
        *,
        idempotency_key: str | None = None,
        cancel_after: float | None = None,
        webhook_url: str | None = None,
    ) -> "AsyncPrediction":
        """Queue a prediction; returns once it is accepted.

        The same `idempotency_key` is the same prediction; by default it is a new one.
        `cancel_after`: seconds for queue and run. Raises InvalidInput, KeyReused, InvalidHeader.
        """
        headers = {"Async-Mode": "true", "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        options = _request(input, cancel_after, **headers, **{"Webhook-Url": webhook_url})
        _, body = await self._send("POST", "", "prediction_id", **options)
        return self.prediction(body["prediction_id"])

    async def stream(
        self, input: Any, *, cancel_after: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """The pieces of the output. Runs and raises as `predict`; closing this ends the run."""
        options = _request(input, cancel_after)
        async with aclosing(self._events("POST", "", "result", **options)) as events:
            async for kind, data, _ in events:
                if kind == "output":
                    yield data
                elif "error" in data:
                    error = errors.BY_CODE.get(data.get("code"), errors.PredictionError)
                    raise error(data["error"])

    def prediction(self, id: str) -> "AsyncPrediction":
        """The prediction with this id, which is not checked here."""
        return AsyncPrediction(id, self._send, self._events)

    async def _send(
        self, method: str, path: str, field: str, *, hold: float = 0, **options: Any
    ) -> tuple[httpx.Response, Body]:
        """The response; and its body, which has `field` or is pending, unless it is a stream.

        `hold`: seconds that the api may take. A `result` is not asked for again once it may have
        been computed.
        """
        since, timeout = None, httpx.Timeout(_TIMEOUT, read=hold + _TIMEOUT)
        while True:
            request = self.http.build_request(method, f"predict{path}", timeout=timeout, **options)
            try:
                response, body = await self.http.send(request, stream=True), Body()
                if request.headers["Accept"] not in response.headers.get("Content-Type", ""):
                    await response.aread()
                    body = _read(response, field)
            except httpx.HTTPError as error:
                failure = self._no_answer(error, is_safe=field != "result")
            except errors.PredictorError as error:
                failure = error
            else:
                self._succeeded, self._is_failing = time.monotonic(), False
                return response, body
            since = await self._back_off(failure, since)

    async def _events(
        self, method: str, path: str, field: str, *, headers: dict[str, str], content: bytes = b""
    ) -> AsyncGenerator[Event, None]:
        """Each event once, up to `completed`. What broke off goes on, unless that would run it."""
        headers = headers | {"Accept": "text/event-stream", "Prefer": "return=minimal"}
        while True:
            response, _ = await self._send(method, path, field, headers=headers, content=content)
            kind = ""
            async with aclosing(response):
                with suppress(httpx.HTTPError):
                    async for event in EventSource(response).aiter_sse():
                        kind = event.event
                        headers |= {"Last-Event-ID": event.id} if event.id else {}
                        yield Event(kind, from_json(event.data), event.id)
            if kind == "completed":
                return
            if field == "result":
                raise errors.Unreachable("The events broke off.")
            await asyncio.sleep(1)

    def _no_answer(self, error: httpx.HTTPError, *, is_safe: bool) -> errors.PredictorError:
        is_connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if is_connected and len(error.request.content) > _LARGE:
            # The api closes the connection to what is too large; its response can be lost.
            return errors.BodyTooLarge("cut off: is it larger than the api's PREDICTOR_MAX_BODY?")
        is_final = isinstance(error, httpx.UnsupportedProtocol) or (is_connected and not is_safe)
        reason = f"no answer from {self.address} ({str(error) or type(error).__name__})"
        return errors.Unreachable(reason, retry_after=math.inf if is_final else 0)

    async def _back_off(self, failure: errors.PredictorError, since: float | None) -> float:
        """Wait until a retry; raise the failure if it is too late for one.

        Takes and returns when this began to fail. If the api is just busy, other successes count.
        """
        now = time.monotonic()
        since = since or now
        is_busy = not isinstance(failure, errors.Unreachable)
        lasted = now - (max(since, self._succeeded) if is_busy else since)
        # Proportional to the time so far, which doubles it each time, up to five seconds.
        pause = random.uniform(0.5, 1) * min(0.2 + lasted, 5)  # noqa: S311 (no secret)
        pause = max(pause, failure.retry_after)
        if lasted + pause > self._retry_for:
            raise failure
        if not self._is_failing and lasted + pause > 0.5:
            self._is_failing = True
            logger.warning("%s; trying again for %g s", failure, self._retry_for)
        await asyncio.sleep(pause)
        return since


class AsyncPrediction:
    """A prediction that was accepted. All requests are retried; raises UnknownPrediction, too."""

    def __init__(
        self, id: str, send: Callable[..., Any], events: Callable[..., AsyncGenerator[Event, None]]
    ) -> None:
        self.id, self._path = id, f"/{quote(id, safe='')}"
        self._send, self._events = send, events

    async def wait(self, timeout: float | None = None) -> Any:
        """The result, once there is one. Raises TimeoutError after `timeout` seconds, while the
        prediction goes on; as `predict`, Canceled, and Expired.
        """
        return (await self.output(timeout))["result"]

    async def output(self, timeout: float | None = None) -> dict[str, Any]:
        """The `input` and the `result`; as `wait`."""
        options: Body = {"headers": {"Prefer": f"wait={_HOLD}"}, "hold": _HOLD}
        async with asyncio.timeout(timeout):
            while True:
                began = time.monotonic()
                _, body = await self._send("GET", self._path, "output", **options)
                if "output" in body:
                    return dict(body["output"])
                await asyncio.sleep(max(0, began + 1 - time.monotonic()))  # a proxy ended the hold

    async def status(self) -> Status:
        """The state, times, tries and progress."""
        _, body = await self._send("GET", f"{self._path}/status", "status")
        return cast(Status, body)

    async def cancel(self) -> dict[str, Any]:
        """End it: `status` is `canceled`, or `canceling` while it runs. Raises AlreadyEnded."""
        _, body = await self._send("POST", f"{self._path}/cancel", "status")
        return cast(Body, body)

    def events(self) -> AsyncGenerator[Event, None]:
        """Each event once, from the first to `completed`, which has the `error` if there is one."""
        return self._events("GET", f"{self._path}/events", "", headers={})

    async def stream(self) -> AsyncGenerator[Any, None]:
        """The pieces of the output; raises as `wait`. A run that is repeated repeats its pieces."""
        async with aclosing(self.events()) as events:
            async for kind, data, _ in events:
                if kind == "output":
                    yield data
                elif kind == "completed" and data["status"] != "succeeded":
                    await self.wait()


def _request(input: Any, cancel_after: float | None, **headers: str | None) -> Body:
    """The body and the headers of a request for a prediction. Raises InvalidInput."""
    if isinstance(input, bytes):
        content, headers["Content-Type"] = input, "application/octet-stream"
    else:
        try:
            content = to_json({"input": input}, bytes_mode="base64")
        except ValueError as error:
            raise errors.InvalidInput(f"The input is not JSON: {error}") from error
        headers["Content-Type"] = "application/json"
    headers["Cancel-After"] = None if cancel_after is None else f"{cancel_after:.3f}s"
    return {"content": content, "headers": _checked(**headers)}


def _checked(**headers: str | None) -> dict[str, str]:
    """Those that have a value. Raises InvalidHeader."""
    given = {name: value for name, value in headers.items() if value is not None}
    for name, value in given.items():
        if not (value.isascii() and value.isprintable()):
            raise errors.InvalidHeader(f"{name} must have printable ASCII characters only.")
    return given


def json_object(data: bytes) -> Body:
    """`data` as a JSON object; an empty one if it is none."""
    body: Body = {}
    with suppress(ValueError, TypeError):
        body |= from_json(data)
    return body


def error_of(status: int, message: str) -> errors.PredictorError:
    """The error of the service with this status and message."""
    every = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in every if issubclass(kind, errors.PredictorError)]
    kinds = [kind for kind in kinds if kind.status == status] or [errors.RequestError]
    alike = [kind for kind in kinds if message.startswith(str(kind())[:_ALIKE])]
    kind: type[errors.PredictorError] = [*alike, _USUAL.get(status, kinds[0])][0]
    return kind(message)


def _read(response: httpx.Response, field: str) -> Body:
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
        refusal = error_of(status, message) if error else errors.Unreachable(message)
        refusal.retry_after = float(seconds) if seconds.isdecimal() else 1
        raise refusal
    is_end = error and (field == "result" or "prediction_id" in body)
    is_end = is_end or error == str(errors.ModelFailed())  # amid the checks of an input
    if status >= 500 and not (status in {500, 504} and is_end):
        raise errors.Unreachable(message, retry_after=math.inf if field == "result" else 0)
    if not error or (status == 404 and url.path.endswith("/predict")):
        raise errors.Unreachable(f"{message} (is that the api?)")
    raise error_of(status, message)
