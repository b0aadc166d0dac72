"""Sync predictions that run on the workers: submitted, awaited and erased in one request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from fastapi import Request, Response
from fastapi.sse import EventSourceResponse

from predictor import errors
from predictor.api import headers, responses
from predictor.api.dependencies import AppState, app_state
from predictor.api.events import follow, wait_for_end
from predictor.prediction import Job, Json, PredictionId, new_id
from predictor.store.predictions import Predictions

_MARGIN = 2.0  # seconds past its time for a prediction to be ended


@asynccontextmanager
async def _submitted(
    state: AppState, value: Json, cancel_after: float
) -> AsyncIterator[PredictionId]:
    """A prediction in the queue. It is canceled and erased at the end: nobody else has its id."""
    id_ = (await state["predictions"].submit(new_id(), Job(value, cancel_after))).id
    try:
        yield id_
    finally:
        await asyncio.shield(asyncio.create_task(_remove(state["predictions"], id_)))


async def _remove(store: Predictions, id_: PredictionId) -> None:
    with suppress(errors.PredictorError):
        try:
            await store.erase(id_)
        except errors.StillActive:
            await store.cancel(id_)
            await store.erase(id_)


async def run(request: Request, value: Json, options: headers.PredictHeaders) -> Response:
    """The response to a sync prediction."""
    state = app_state(request)
    seconds = options.cancel_after or state["config"].timeout
    async with _submitted(state, value, seconds) as id_:
        prediction = await wait_for_end(state, id_, seconds + _MARGIN)
    if prediction.is_active:
        raise errors.Overloaded("The server is being stopped; try again.")
    more = responses.progress(prediction) | options.preferences.applied()
    if prediction.output:
        return responses.done(request, prediction.output, more, options.preferences)
    return await responses.failed(request, prediction.error or errors.Unreadable(), more)


async def stream(request: Request, value: Json, options: headers.PredictHeaders) -> Response:
    """The events of a sync prediction as they happen, then its output."""
    state, stack = app_state(request), AsyncExitStack()
    submitted = _submitted(state, value, options.cancel_after or state["config"].timeout)
    id_ = await stack.enter_async_context(submitted)

    async def events() -> AsyncIterator[bytes]:
        async with stack:
            async for event in follow(state, id_, "", is_minimal=options.preferences.is_minimal):
                yield event

    return EventSourceResponse(events(), headers=headers.STREAM | options.preferences.applied())
