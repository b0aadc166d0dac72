"""Sync predictions: run in this process, their result a response or a stream of events."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import Request, Response
from fastapi.sse import EventSourceResponse, format_sse_event

from predictor import errors
from predictor.api import headers, responses
from predictor.api.dependencies import AppState, app_state
from predictor.api.events import PING, PING_EVERY, completed
from predictor.model.run import Emitter, Events, Run
from predictor.prediction import EventKind, Json, Output, new_id

logger = logging.getLogger(__name__)

Emit = Callable[[EventKind, Json], None]

_FIRST = 1.2  # seconds for a first event, or an end, before a stream begins with 200
_MOST_UNSENT = 64 * 2**20  # bytes of events for a client that reads too slowly


@asynccontextmanager
async def _slot(state: AppState, cancel_after: float | None) -> AsyncIterator[float]:
    """Hold a slot; yields the seconds that a run may take. Raises Overloaded, TimedOut."""
    began = time.monotonic()
    if not state["model"].is_ready:
        message = "The model is still loading; try again later, or with Async-Mode: true."
        raise errors.Overloaded(message)
    async with state["slots"].take():
        left = (cancel_after or math.inf) - (time.monotonic() - began)
        if left <= 0:
            raise errors.TimedOut
        yield min(state["config"].timeout, left)


async def run(request: Request, value: Json, options: headers.PredictHeaders) -> Response:
    """The response to a sync prediction."""
    state, failure, began = app_state(request), None, time.monotonic()
    started = began
    try:
        async with _slot(state, options.cancel_after) as seconds:
            started = time.monotonic()
            result = await state["model"].run(value, seconds)
    except errors.PredictionError as error:
        failure = error
    more = headers.SERVER_TIMING(started - began, time.monotonic() - started)
    more |= options.preferences.applied()
    if failure:
        return await responses.failed(request, failure, more)
    return responses.done(request, Output(value, result), more, options.preferences)


async def stream(request: Request, value: Json, options: headers.PredictHeaders) -> Response:
    """The events of a sync prediction as they happen, then its output."""
    state = app_state(request)

    async def run_model(emit: Emit) -> Output:
        async with _slot(state, options.cancel_after) as seconds:
            until, most = time.time() + seconds, state["config"].max_result
            live = Run(new_id(), until, emit, most)
            return Output(value, await state["model"].run(value, seconds, live))

    events = _LiveEvents(run_model, is_minimal=options.preferences.is_minimal)
    if failure := await events.begin():
        raise failure
    more = headers.STREAM | options.preferences.applied()
    return EventSourceResponse(events.follow(), headers=more)


class _LiveEvents:
    """The events of a run in this process. A client that leaves ends the run."""

    def __init__(self, run_model: Callable[[Emit], Awaitable[Output]], *, is_minimal: bool) -> None:
        self._events: asyncio.Queue[tuple[EventKind, Json]] = asyncio.Queue()
        self._begun, self._unsent, self._is_minimal = asyncio.Event(), 0, is_minimal
        self._failure: errors.PredictorError | None = None
        self._emitter = Emitter(self._put)
        self._task = asyncio.create_task(self._complete(run_model))

    async def begin(self) -> errors.PredictorError | None:
        """Return at the first event; if that is the end, the error, if there is one."""
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._begun.wait(), _FIRST)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        return self._failure if self._events.qsize() == 1 else None

    async def follow(self) -> AsyncIterator[bytes]:
        """The events, up to the end."""
        kind = EventKind.STATUS
        try:
            while kind is not EventKind.COMPLETED:
                try:
                    async with asyncio.timeout(PING_EVERY):
                        kind, data = await self._events.get()
                except TimeoutError:
                    yield PING
                    continue
                self._unsent -= len(data)
                if kind is EventKind.COMPLETED and isinstance(self._failure, errors.ModelFailed):
                    logger.error("the model failed", exc_info=self._failure)
                yield format_sse_event(data_str=data.decode(), event=kind)
        finally:
            self._task.cancel()

    async def _put(self, _: int, events: Events) -> None:
        self._unsent += sum(len(data) for _, data in events)
        if self._unsent > _MOST_UNSENT:
            raise errors.ModelFailed("The client reads the events too slowly.")
        for event in events:
            self._events.put_nowait(event)
        self._begun.set()

    async def _complete(self, run_model: Callable[[Emit], Awaitable[Output]]) -> None:
        outcome: Output | errors.PredictorError
        try:
            try:
                outcome = await run_model(self._emitter.emit)
            finally:
                await self._emitter.close()
        except errors.PredictorError as error:
            outcome = self._failure = error
        data = completed(outcome, is_minimal=self._is_minimal)
        self._events.put_nowait((EventKind.COMPLETED, data))
        self._begun.set()
