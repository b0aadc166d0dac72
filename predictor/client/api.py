"""A client of the api, which retries what is safe to send again."""

import asyncio
import contextlib
import logging
import math
import random
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import SSEError, aconnect_sse
from pydantic_core import from_json

from predictor.config import Config
from predictor.errors import PredictionError, PredictorError, RequestError, UnknownPrediction

logger = logging.getLogger(__name__)

_TIMEOUT = 20.0  # seconds, on top of the time that the api is asked to hold a request

Body = dict[str, Any]


class Unreachable(PredictorError):
    """The api cannot be reached."""

    def __init__(self, message: str | None = None, retry_after: float | None = None) -> None:
        """`retry_after`: seconds until a retry; set if the request was certainly not processed."""
        super().__init__(message)
        self.retry_after = retry_after


class Client(contextlib.AbstractAsyncContextManager["Client"]):
    """The api at one address.

    Raises PredictionError if a prediction ended without a result, RequestError if the api refuses
    the request, UnknownPrediction, and Unreachable.
    """

    def __init__(self, config: Config, retry_for: float) -> None:
        """`retry_for`: seconds after which requests are no longer retried."""
        self._config, self._retry_for = config, retry_for
        self._failing_since: float | None = None
        self._url = str(config.url or config.local_url).rstrip("/")
        key = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._http = httpx.AsyncClient(headers=key, timeout=_TIMEOUT, limits=httpx.Limits())

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def predict(self, text: str) -> Body:
        """The `input` and the `result`. Not retried once it may have been processed."""
        options: Body = {"json": {"input": text}, "timeout": self._config.timeout + _TIMEOUT}
        return await self._call("POST", "", "result", **options)

    async def submit(self, text: str, key: str | None = None) -> Body:
        """The `prediction_id` of an async prediction; the same for the same key."""
        headers = {"Async-Mode": "true", "Idempotency-Key": key or uuid.uuid4().hex}
        return await self._call("POST", "", "prediction_id", json={"input": text}, headers=headers)

    async def status(self, id_: str) -> Body:
        return await self._call("GET", f"{_path(id_)}/status", "status")

    async def cancel(self, id_: str) -> Body:
        return await self._call("POST", f"{_path(id_)}/cancel", "status")

    async def wait(self, id_: str, on_event: Callable[[str, Any], None] | None = None) -> Body:
        """The `output`, as soon as there is one; `on_event` is called with each event."""
        # Proxies cut connections after a minute, and a stream that broke off is soon resumed.
        hold = 1 if on_event else 30
        options: Body = {"headers": {"Prefer": f"wait={hold}"}, "timeout": hold + _TIMEOUT}
        last = ""
        while True:
            if on_event:
                last = await self._follow(id_, last, on_event)
            began = time.monotonic()
            body = await self._call("GET", _path(id_), "output", **options)
            if "output" in body:
                return body
            await asyncio.sleep(max(0, began + 1 - time.monotonic()))  # a proxy may end the hold

    async def _follow(self, id_: str, last: str, on_event: Callable[[str, Any], None]) -> str:
        """Read events until the stream ends or breaks off; return the id of its last event."""
        url = f"{self._url}/predict{_path(id_)}/events"
        headers = {"Last-Event-ID": last} if last else {}
        with contextlib.suppress(httpx.HTTPError, SSEError, ValueError):
            async with aconnect_sse(self._http, "GET", url, headers=headers) as source:
                async for event in source.aiter_sse():
                    last = event.id or last
                    on_event(event.event, from_json(event.data))
        return last

    async def _call(self, method: str, path: str, field: str, **options: Any) -> Body:
        """The response body that has `field`, with retries while they are safe and may help."""
        while True:
            try:
                body = _read(await self._send(method, path, **options), field)
            except Unreachable as failure:
                if field == "result" and failure.retry_after is None:  # it may have been processed
                    raise
                await self._back_off(failure)
            else:
                self._failing_since = None
                return body

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, f"{self._url}/predict{path}", **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            is_harmless = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if len(str(options.get("json")).encode()) > self._config.max_body and not is_harmless:
                # The api closes the connection to what is too large; its response can be lost.
                text = "cut off: is it larger than the api's PREDICTOR_MAX_BODY?"
                raise RequestError(text) from None
            address = self._url.rpartition("@")[2]  # without a password
            reason = f"no answer from {address} ({str(error) or type(error).__name__})"
            raise Unreachable(reason, 0 if is_harmless else None) from None

    async def _back_off(self, failure: Unreachable) -> None:
        """Return when it is time for a retry; raise `failure` if it is too late for one."""
        now = time.monotonic()
        lasted = now - (self._failing_since or now)
        # Proportional to the time so far, which doubles it each time, up to five seconds.
        pause = random.uniform(0.5, 1) * min(0.2 + lasted, 5)  # noqa: S311 (no secret)
        pause = max(pause, failure.retry_after or 0)
        if lasted + pause > self._retry_for:
            raise failure
        if self._failing_since is None:
            self._failing_since = now
            logger.warning("%s; trying again for %g s", failure, self._retry_for)
        await asyncio.sleep(pause)


def json_object(data: bytes) -> Body:
    """`data` as a JSON object; an empty one if it is none."""
    body: Body = {}
    with contextlib.suppress(ValueError, TypeError):
        body |= from_json(data)
    return body


def _path(id_: str) -> str:
    return f"/{quote(id_, safe='')}"


def _read(response: httpx.Response, field: str) -> Body:
    """The body, if it is pending or has `field`. Raises what other responses mean."""
    status, body = response.status_code, json_object(response.content)
    error = body.get("error")
    message = str(error or f"{response.url}: {status} {response.reason_phrase}")
    if response.is_success and (field in body or error):
        return body
    if status in {410, 422, 500, 504} and error and (field == "result" or "prediction_id" in body):
        raise PredictionError(message)
    if status in {429, 503}:
        seconds = response.headers.get("Retry-After", "")
        raise Unreachable(message, float(seconds) if seconds.isdecimal() else 1)
    if status >= 500:
        raise Unreachable(message)
    if status == 404 and error and not response.url.path.endswith("/predict"):
        raise UnknownPrediction("No such prediction: never accepted, or no longer kept.")
    if status == 404 or not error:
        raise Unreachable(f"{message} (is that the api?)", math.inf)
    raise RequestError(message)
