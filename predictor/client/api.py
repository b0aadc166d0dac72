"""The api as a client sees it: what can be asked of it, and what may be asked again."""

import asyncio
import contextlib
import logging
import math
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote

import httpx
from httpx_sse import SSEError, aconnect_sse
from pydantic_core import from_json

from predictor.config import Config
from predictor.errors import PredictionError, PredictorError

logger = logging.getLogger(__name__)

#: Seconds that the api may be silent; those that it is asked to hold an answer come on top.
_TIMEOUT = 20.0

Body = dict[str, Any]


class Refused(PredictorError):
    """The api refuses the request."""


class UnknownPrediction(PredictorError):
    """No such prediction: never accepted, or no longer kept."""


class Unreachable(PredictorError):
    """The api cannot be reached."""

    def __init__(self, message: str | None = None, retry_after: float | None = None) -> None:
        """`retry_after`: nothing has come of it, so anything may be sent again, in so long."""
        super().__init__(message)
        self.retry_after = retry_after


class Client:
    """The api at one address. Raises PredictionError where a prediction ended without a result."""

    def __init__(self, config: Config, patience: float) -> None:
        """`patience`: seconds that trouble with the api is waited out."""
        self._config = config
        self._patience = patience
        self._trouble_began: float | None = None
        self._url = str(config.url or config.local_url).rstrip("/")
        self._address = self._url.rpartition("@")[2]  # without a password
        self._http = httpx.AsyncClient(timeout=_TIMEOUT, limits=httpx.Limits())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def predict(self, text: str) -> Body:
        """The `input` and the `result`. Never sent again once it may have been heard."""
        asked: Body = {"json": {"input": text}, "timeout": self._config.timeout + _TIMEOUT}
        return await self._ask("POST", "", "result", is_repeatable=False, **asked)

    async def submit(self, text: str, key: str | None = None) -> Body:
        """The `prediction_id` of a prediction to run later; the same one for the same key."""
        headers = {"Async-Mode": "true", "Idempotency-Key": key or uuid.uuid4().hex}
        return await self._ask("POST", "", "prediction_id", json={"input": text}, headers=headers)

    async def status(self, id_: str) -> Body:
        """How far it has come."""
        return await self._ask("GET", f"{_path(id_)}/status", "status")

    async def cancel(self, id_: str) -> Body:
        """The `status` that asking it to end led to. Asking twice does no harm."""
        return await self._ask("POST", f"{_path(id_)}/cancel", "status")

    async def wait(self, id_: str, listen: Callable[[str, Any], None] | None = None) -> Body:
        """The `output`, as soon as there is one.

        Reading the prediction decides; its events only tell `listen` what happens meanwhile.
        """
        # Proxies cut connections after a minute; and events that broke off are to go on soon.
        hold = 1 if listen else 30
        asked: Body = {"headers": {"Prefer": f"wait={hold}"}, "timeout": hold + _TIMEOUT}
        last = ""
        while True:
            if listen:
                last = await self._follow(id_, last, listen)
            began = time.monotonic()
            body = await self._ask("GET", _path(id_), "output", **asked)
            if "output" in body:
                return body
            # Something between us and the api may not let it hold its answer.
            await asyncio.sleep(max(0, began + 1 - time.monotonic()))

    async def _follow(self, id_: str, last: str, listen: Callable[[str, Any], None]) -> str:
        """Listen to the end, or until the stream breaks off; answers the last event's id."""
        url = f"{self._url}/predict{_path(id_)}/events"
        headers = {"Last-Event-ID": last} if last else {}
        with contextlib.suppress(httpx.HTTPError, SSEError, ValueError):
            async with aconnect_sse(self._http, "GET", url, headers=headers) as source:
                async for event in source.aiter_sse():
                    last = event.id or last
                    listen(event.event, from_json(event.data))
        return last

    async def _ask(
        self, method: str, path: str, field: str, *, is_repeatable: bool = True, **asked: Any
    ) -> Body:
        """The answer that has `field`, asked for again while that is safe and may help."""
        while True:
            try:
                response = await self._send(method, path, **asked)
                body = _read(response, field, is_sync=not is_repeatable)
            except Unreachable as trouble:
                if not is_repeatable and trouble.retry_after is None:
                    raise
                await self._wait_out(trouble)
            else:
                self._trouble_began = None
                return body

    async def _send(self, method: str, path: str, **asked: Any) -> httpx.Response:
        try:
            return await self._http.request(method, f"{self._url}/predict{path}", **asked)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            is_harmless = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if len(str(asked.get("json")).encode()) > self._config.max_body and not is_harmless:
                # The api hangs up on what is too large; its answer can be lost with the connection.
                raise Refused("cut off: is it larger than the api's PREDICTOR_MAX_BODY?") from None
            reason = f"no answer from {self._address} ({str(error) or type(error).__name__})"
            raise Unreachable(reason, 0 if is_harmless else None) from None

    async def _wait_out(self, trouble: Unreachable) -> None:
        """Return when it is time for another try; raise it when the patience has ended."""
        lasted = 0.0 if self._trouble_began is None else time.monotonic() - self._trouble_began
        # As long again as it has lasted, which doubles it each time, up to five seconds.
        pause = random.uniform(0.5, 1) * min(0.2 + lasted, 5)  # noqa: S311 (no secret)
        pause = max(pause, trouble.retry_after or 0)
        if lasted + pause > self._patience:
            raise trouble
        if self._trouble_began is None:
            self._trouble_began = time.monotonic()
            logger.warning("%s; trying again for %g s", trouble, self._patience)
        await asyncio.sleep(pause)


def json_object(data: bytes) -> Body:
    """The JSON object that `data` is; an empty one if it is something else."""
    body: Body = {}
    with contextlib.suppress(ValueError, TypeError):
        body |= from_json(data)
    return body


def _path(id_: str) -> str:
    return f"/{quote(id_, safe='')}"


def _read(response: httpx.Response, field: str, *, is_sync: bool) -> Body:
    """What the response says: that it is pending, or something with `field`. Raises the others."""
    status, body = response.status_code, json_object(response.content)
    error = body.get("error")
    message = str(error or f"{response.url}: {status} {response.reason_phrase}")
    if response.is_success and (field in body or error):
        return body
    if status in {410, 422, 500, 504} and error and (is_sync or "prediction_id" in body):
        raise PredictionError(message)
    if status in {429, 503}:
        seconds = response.headers.get("Retry-After", "")
        raise Unreachable(message, float(seconds) if seconds.isdecimal() else 1)
    if status >= 500:
        raise Unreachable(message)
    if status == 404 and error and not response.url.path.endswith("/predict"):
        raise UnknownPrediction
    if status == 404 or not error:
        raise Unreachable(f"{message} (is that the api?)", math.inf)
    raise Refused(message)
