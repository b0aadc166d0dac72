"""Waiting for the end of a prediction, or of the client."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from predictor.api.dependencies import AppState
from predictor.errors import ClientDisconnected
from predictor.prediction import Prediction, PredictionId

#: Seconds after which a waiter reads again though it was not woken.
LOOK_EVERY = 5.0

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The outcome of `work`, which is canceled if the client disconnects meanwhile."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def wait_for_end(state: AppState, id_: PredictionId, seconds: float) -> Prediction:
    """The prediction as soon as it has ended, or as it is after so many seconds.

    Raises UnknownPrediction.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    async with state["changes"].subscribe(id_, only_end=True) as event:
        while True:
            event.clear()
            prediction = await state["predictions"].look(id_)
            left = deadline - asyncio.get_running_loop().time()
            if not prediction.is_active:
                return await state["predictions"].read(id_)
            if left <= 0 or state["changes"].is_closing:
                return prediction
            with contextlib.suppress(TimeoutError):
                # Messages are lost while the store is away; an expiry in the queue sends none.
                pause = min(left, LOOK_EVERY, (prediction.expires_in or LOOK_EVERY) + 0.01)
                await asyncio.wait_for(event.wait(), pause)
