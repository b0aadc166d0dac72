"""Sync predictions that run on the workers: submitted, awaited and erased in one request."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from predictor import errors
from predictor.api.events import Expected, follow, submit, wait_for_end
from predictor.api.headers import PredictHeaders
from predictor.api.responses import Ended, progress
from predictor.api.state import AppState
from predictor.prediction import Job, Json, PredictionId
from predictor.store.predictions import Predictions

MARGIN = 2.0  # seconds past its time for a prediction to be ended


@asynccontextmanager
async def _submitted(
    state: AppState, value: Json, seconds: float, *, is_awaited: bool
) -> AsyncIterator[tuple[PredictionId, Expected | None]]:
    """A prediction in the queue. It is canceled and erased at the end: nobody else has its id."""
    job = Job(value, cancel_after=seconds, mode="sync")
    submitted, expected = await submit(state, job, is_awaited=is_awaited)
    try:
        yield submitted.id, expected
    finally:
        await asyncio.shield(asyncio.create_task(_remove(state["predictions"], submitted.id)))


async def _remove(store: Predictions, id_: PredictionId) -> None:
    with suppress(errors.PredictorError):
        try:
            await store.erase(id_)
        except errors.StillActive:
            await store.cancel(id_)
            await store.erase(id_)


async def run(state: AppState, value: Json, options: PredictHeaders) -> Ended:
    """The outcome of a sync prediction, and its headers."""
    seconds = min(options.cancel_after or math.inf, state["config"].timeout)
    async with _submitted(state, value, seconds, is_awaited=True) as (id_, expected):
        wait = seconds + MARGIN
        prediction = await wait_for_end(state, id_, wait, expected, drains=True)
    return prediction.output or prediction.error or errors.TimedOut(), progress(prediction)


async def events(state: AppState, value: Json, options: PredictHeaders) -> AsyncIterator[bytes]:
    """Nothing, as soon as it is submitted; then the events, and the output."""
    seconds = min(options.cancel_after or math.inf, state["config"].timeout)
    async with _submitted(state, value, seconds, is_awaited=False) as (id_, _):
        yield b""
        is_minimal = options.preferences.is_minimal
        async for event in follow(state, id_, "", is_minimal=is_minimal, drains=True):
            yield event
