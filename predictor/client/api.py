"""Requests to the api, sent again where that is safe and may help."""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any, NamedTuple

import httpx
from httpx_sse import EventSource
from pydantic_core import from_json

from predictor import errors
from predictor.errors import PredictorError, Unreachable

logger = logging.getLogger(__name__)

_TIMEOUT = 20.0  # seconds, on top of the time that the api is asked to hold a request
_LARGE = 10 * 2**20  # bytes: PREDICTOR_MAX_BODY, unless it is set
_ALIKE = 20  # characters that a message begins with as the default of its class does
#: The classes of other messages, where that is not the first one with the status.
_USUAL = {422: errors.InvalidInput, 500: errors.ModelFailed, 503: errors.Overloaded}

Body = dict[str, Any]


class Event(NamedTuple):
    """An event of a prediction: `status`, `progress`, `output`, at last `completed`."""

    kind: str
    data: Any
    id: str = ""


class _Failure(Exception):
    """A request failed that may succeed later."""

    def __init__(self, error: PredictorError, pause: float | None = None) -> None:
        """`pause`: seconds until a retry; set if the request was certainly not processed."""
        super().__init__(error)
        self.error, self.pause = error, pause


class Api:
    """The api at one address. Its methods raise the errors that the responses mean."""

    def __init__(self, url: str, api_key: str, retry_for: float) -> None:
        """`retry_for`: seconds after which requests are no longer retried."""
        self._url, self._retry_for = url.rstrip("/"), retry_for
        self.address = self._url.rpartition("//")[2].rpartition("@")[2]  # without a password
        self._succeeded, self._is_failing = 0.0, False  # when a request last succeeded
        key = {"Authorization": f"Bearer {api_key.strip()}"} if api_key else {}
        self.http = httpx.AsyncClient(headers=key, timeout=_TIMEOUT, limits=httpx.Limits())

    async def call(
        self, method: str, path: str, field: str, *, hold: float = 0, **options: Any
    ) -> Body:
        """The response body that has `field`, or is pending; `hold`: seconds that it may take.

        A prediction's `result` is not asked for again once it may have been processed.
        """
        since, timeout = None, httpx.Timeout(_TIMEOUT, read=hold + _TIMEOUT)
        while True:
            try:
                with self._answering(options):
                    url = f"{self._url}/predict{path}"
                    response = await self.http.request(method, url, timeout=timeout, **options)
                body = _read(response, field)
            except _Failure as failure:
                since = await self._back_off(failure, since, is_safe=field != "result")
            else:
                self._succeeded, self._is_failing = time.monotonic(), False
                return body

    async def look(self, path: str) -> httpx.Response:
        """The response of a path beside /predict, of any status. Raises Unreachable."""
        try:
            with self._answering({}):
                return await self.http.get(self._url + path)
        except _Failure as failure:
            raise failure.error from None

    async def events(self, method: str, path: str, **options: Any) -> AsyncGenerator[Event, None]:
        """The events up to the last one, `completed`. Not retried once it has begun."""
        since = None
        while True:
            try:
                async with contextlib.aclosing(self._stream(method, path, **options)) as events:
                    async for event in events:
                        yield event
            except _Failure as failure:
                since = await self._back_off(failure, since, is_safe=False)
            else:
                return

    async def _stream(self, method: str, path: str, **options: Any) -> AsyncGenerator[Event, None]:
        url, kind = f"{self._url}/predict{path}", ""
        options["headers"] |= {"Accept": "text/event-stream", "Prefer": "return=minimal"}
        with self._answering(options):
            async with self.http.stream(method, url, **options) as response:
                if response.status_code == 204:  # it has ended, and there are no more
                    return
                if "text/event-stream" not in response.headers.get("Content-Type", ""):
                    await response.aread()
                    _read(response, "" if method == "GET" else "result")
                async for event in EventSource(response).aiter_sse():
                    if kind := event.event:
                        yield Event(kind, from_json(event.data), event.id)
        if kind != "completed":
            raise _Failure(Unreachable("the events broke off"))

    @contextlib.contextmanager
    def _answering(self, options: Body) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            is_harmless = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            is_hopeless = isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL)
            pause = 0.0 if is_harmless else math.inf if is_hopeless else None
            if pause is None and len(options.get("content", "")) > _LARGE:
                # The api closes the connection to what is too large; its response can be lost.
                text = "cut off: is it larger than the api's PREDICTOR_MAX_BODY?"
                raise errors.BodyTooLarge(text) from None
            reason = f"no answer from {self.address} ({str(error) or type(error).__name__})"
            raise _Failure(Unreachable(reason), pause) from None

    async def _back_off(self, failure: _Failure, since: float | None, *, is_safe: bool) -> float:
        """Wait until a retry; raise the error if none is safe, or it is too late for one.

        Takes and returns when this began to fail. If the api is just busy, other successes count.
        """
        if failure.pause is None and not is_safe:
            raise failure.error from None
        now = time.monotonic()
        since = since or now
        is_busy = not isinstance(failure.error, Unreachable)
        lasted = now - (max(since, self._succeeded) if is_busy else since)
        # Proportional to the time so far, which doubles it each time, up to five seconds.
        pause = random.uniform(0.5, 1) * min(0.2 + lasted, 5)  # noqa: S311 (no secret)
        pause = max(pause, failure.pause or 0)
        if lasted + pause > self._retry_for:
            raise failure.error from None
        if not self._is_failing and lasted + pause > 0.5:
            self._is_failing = True
            logger.warning("%s; trying again for %g s", failure.error, self._retry_for)
        await asyncio.sleep(pause)
        return since


def json_object(data: bytes) -> Body:
    """`data` as a JSON object; an empty one if it is none."""
    body: Body = {}
    with contextlib.suppress(ValueError, TypeError):
        body |= from_json(data)
    return body


def error_of(status: int | None, message: str) -> PredictorError:
    """The error of the service with this status and message; None: that of a prediction."""
    every = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in every if issubclass(kind, PredictorError) and kind.status == status]
    kinds = kinds or ([errors.RequestError] if status else list(errors.BY_CODE.values()))
    alike = [kind for kind in kinds if message.startswith(str(kind())[:_ALIKE])]
    error: PredictorError = [*alike, _USUAL.get(status or 0, kinds[0])][0]()
    error.args = (message,)
    return error


def _read(response: httpx.Response, field: str) -> Body:
    """The body, if it is pending or has `field`. Raises what other responses mean."""
    status, body = response.status_code, json_object(response.content)
    error = body.get("error")
    if response.is_success and (field in body or error):
        return body
    url = response.url.copy_with(userinfo=b"")
    message = str(error or f"{url}: {status} {response.reason_phrase}")
    if status in {429, 503}:
        seconds = response.headers.get("Retry-After", "")
        pause = float(seconds) if seconds.isdecimal() else 1
        refusal = error_of(status, message) if error else Unreachable(message)
        vars(refusal)["retry_after"] = pause
        raise _Failure(refusal, pause)
    is_end = error and (field == "result" or "prediction_id" in body)
    if status >= 500 and not (status in {500, 504} and is_end):
        raise _Failure(Unreachable(message))
    if not error or (status == 404 and url.path.endswith("/predict")):
        raise _Failure(Unreachable(f"{message} (is that the api?)"), math.inf)
    raise error_of(status, message)
