"""A client for asyncio: predictions that are awaited, followed and canceled."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal, Self, TypedDict, cast
from urllib.parse import quote

from pydantic_core import to_json

from predictor.client.api import Api, Body, Event, error_of
from predictor.errors import InvalidInput, PredictorError

_HOLD = 30  # seconds that the api holds a request for a result: proxies cut it after a minute


class Status(TypedDict):
    """Everything known of a prediction, except its output. Times are in RFC 3339 format."""

    prediction_id: str
    status: Literal["queued", "running", "succeeded", "failed", "canceled", "timed_out"]
    position: int | None  # 1 is the next to run; None unless it waits
    estimated_start: str | None
    created: str
    started: str | None
    finished: str | None
    tries: int  # how often it was started
    model: str | None
    model_version: str | None
    progress: dict[str, Any] | None  # `fraction`, from 0 to 1, and `message`
    error: str | None  # why it ended without an output


class AsyncClient:
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
        self._api, self._timeout = Api(url, key, retry_for), timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.http.aclose()

    async def predict(self, input: Any, *, cancel_after: float | None = None) -> Any:
        """The result for an input: any JSON value, or bytes, which are sent as a file.

        Runs at once, and is not retried once it may have run. `cancel_after`: seconds that it may
        take. Raises InvalidInput, ModelFailed, TimedOut, or another PredictionError.
        """
        options = _request(input, cancel_after, Prefer="return=minimal")
        body = await self._api.call("POST", "", "result", hold=self._timeout, **options)
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
        `cancel_after`: seconds for queue and run. Raises InvalidInput and KeyReused.
        """
        headers = {"Async-Mode": "true", "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if webhook_url is not None:
            headers["Webhook-Url"] = webhook_url
        options = _request(input, cancel_after, **headers)
        body = await self._api.call("POST", "", "prediction_id", **options)
        return self.prediction(body["prediction_id"])

    async def stream(
        self, input: Any, *, cancel_after: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """The pieces of the output. Runs and raises as `predict`; closing this ends the run."""
        options = _request(input, cancel_after)
        async with aclosing(self._api.events("POST", "", **options)) as events:
            async for event in events:
                if event.kind == "output":
                    yield event.data
                elif "error" in event.data:
                    status = {"canceled": 410, "timed_out": 504}.get(event.data["status"])
                    raise error_of(status, event.data["error"])

    def prediction(self, id: str) -> "AsyncPrediction":
        """The prediction with this id, which is not checked here."""
        return AsyncPrediction(id, self._api)


class AsyncPrediction:
    """A prediction that was accepted. All requests are retried; raises UnknownPrediction, too."""

    def __init__(self, id: str, api: Api) -> None:
        self.id = id
        self._api, self._path = api, f"/{quote(id, safe='')}"

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
                body = await self._api.call("GET", self._path, "output", **options)
                if "output" in body:
                    return dict(body["output"])
                await asyncio.sleep(max(0, began + 1 - time.monotonic()))  # a proxy ended the hold

    async def status(self) -> Status:
        """The state, times, tries and progress."""
        return cast(Status, await self._api.call("GET", f"{self._path}/status", "status"))

    async def cancel(self) -> dict[str, Any]:
        """End it: `status` is `canceled`, or `canceling` while it runs. Raises AlreadyEnded."""
        return await self._api.call("POST", f"{self._path}/cancel", "status")

    async def events(self) -> AsyncGenerator[Event, None]:
        """Each event once, from the first to `completed`, which has the `error` if there is one."""
        last: dict[str, str] = {}
        while True:
            try:
                events = self._api.events("GET", f"{self._path}/events", headers=last)
                async with aclosing(events):
                    async for event in events:
                        last |= {"Last-Event-ID": event.id} if event.id else {}
                        yield event
            except PredictorError as error:  # they broke off, or a proxy holds them back
                if error.status != 503:
                    raise
            else:
                return
            await self.status()  # unless the api is away
            await asyncio.sleep(1)

    async def stream(self) -> AsyncGenerator[Any, None]:
        """The pieces of the output; raises as `wait`. A run that is repeated repeats its pieces."""
        has_succeeded = False
        async with aclosing(self.events()) as events:
            async for kind, data, _ in events:
                if kind == "output":
                    yield data
                has_succeeded = kind == "completed" and data["status"] == "succeeded"
        if not has_succeeded:
            await self.wait()


def _request(input: Any, cancel_after: float | None, **headers: str) -> Body:
    """The body and the headers of a request for a prediction. Raises InvalidInput."""
    if isinstance(input, bytes):
        content, headers["Content-Type"] = input, "application/octet-stream"
    else:
        try:
            content = to_json({"input": input}, bytes_mode="base64")
        except ValueError as error:
            raise InvalidInput(f"The input is not JSON: {error}") from error
        headers["Content-Type"] = "application/json"
    if cancel_after is not None:
        headers["Cancel-After"] = f"{cancel_after:.3f}s"
    return {"content": content, "headers": headers}
