"""The events of a prediction as Server-Sent Events, resumable, from the stream in the store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from fastapi.sse import format_sse_event
from pydantic_core import to_json

from predictor.api.dependencies import AppState
from predictor.api.waiting import LOOK_EVERY
from predictor.errors import StoreUnavailable, UnknownPrediction
from predictor.prediction import Event, EventKind, Json, PredictionId, encode, splice
from predictor.store.predictions import MOST_EVENTS, Predictions

#: Milliseconds after which a disconnected browser reconnects.
_RETRY = 1000

#: A comment. No empty line follows, which some clients take for the end of an event.
_PING = b": ping\n"

EXAMPLE = (
    'event: progress\ndata: {"fraction":0.4,"message":"4 of 10 pages"}\nid: 1795424059500-0\n\n'
)


async def follow(state: AppState, id_: PredictionId, after: str) -> AsyncIterator[bytes]:
    """The events after `after`, until the prediction has ended or the server is to stop."""
    pause = LOOK_EVERY / 16
    async with state["changes"].subscribe(id_) as changed:
        while not state["changes"].is_closing:
            changed.clear()
            try:
                async for event in _until_now(state["predictions"], id_, after):
                    yield format_sse_event(
                        data_str=event.data.decode(),
                        event=event.kind,
                        id=event.id or None,
                        retry=None if after else _RETRY,
                    )
                    after = event.id or after
                    if event.kind is EventKind.COMPLETED:
                        return
            except StoreUnavailable:
                changed.set()
                await asyncio.sleep(1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), pause)
            if not changed.is_set():
                yield _PING
            pause = min(2 * pause, LOOK_EVERY)


async def _until_now(store: Predictions, id_: PredictionId, after: str) -> AsyncIterator[Event]:
    events = await store.events(id_, after)
    while events:
        for event in events:
            is_end = event.kind is EventKind.COMPLETED
            yield replace(event, data=await _completed(store, id_)) if is_end else event
            after = event.id
        if is_end or len(events) < MOST_EVENTS:
            return
        events = await store.events(id_, after)
    # Past the end without a record of it: it expired in the queue, and no worker has come by.
    if not await _is_active(store, id_) and not await store.events(id_, after):
        yield Event("", EventKind.COMPLETED, await _completed(store, id_))


async def _is_active(store: Predictions, id_: PredictionId) -> bool:
    with contextlib.suppress(UnknownPrediction):
        return (await store.look(id_)).is_active
    return False


async def _completed(store: Predictions, id_: PredictionId) -> Json:
    try:
        prediction = await store.read(id_)
    except UnknownPrediction:
        return Json(b'{"status":"erased"}')
    if prediction.output:
        return splice(status=encode(prediction.state), output=prediction.output.to_json())
    message = prediction.error.message if prediction.error else None
    return Json(to_json({"status": prediction.state, "error": message}))
