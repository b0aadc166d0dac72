"""Waiting for the end of a prediction, or for the client to disconnect."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

from predictor.api.dependencies import AppState
from predictor.errors import ClientDisconnected
from predictor.prediction import Prediction, PredictionId, State

#: Seconds after which a prediction is read again without a notification of a change.
MAX_PAUSE = 5.0

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The outcome of `work`, which is canceled if the client disconnects. Raises its errors."""
    task, disconnected = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        task.cancel()
        disconnected.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def wait_for_end(state: AppState, id_: PredictionId, seconds: float) -> Prediction:
    """The prediction as soon as it has ended, or as it is after `seconds`."""
    store, loop = state["predictions"], asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with state["changes"].subscribe(id_, only_end=True) as changed:
        while True:
            changed.clear()
            prediction = await store.look(id_)
            if prediction.state is State.SUCCEEDED:
                return await store.read(id_)
            if not prediction.is_active:
                return prediction
            left = deadline - loop.time()
            if left <= 0 or state["changes"].is_closing:
                return prediction
            # Notifications are lost while the store is away; an expiry in the queue sends none.
            pause = min(left, MAX_PAUSE, (prediction.expires_in or MAX_PAUSE) + 0.01)
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), pause)
