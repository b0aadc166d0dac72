"""The events of a prediction as Server-Sent Events, resumable, from the stream in the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from fastapi.sse import format_sse_event
from pydantic_core import to_json

from predictor.api.dependencies import AppState
from predictor.api.waiting import MAX_PAUSE
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
    """The events after the event `after`, until the prediction has ended or the server stops."""
    pause = MAX_PAUSE / 16
    async with state["changes"].subscribe(id_) as changed:
        while not state["changes"].is_closing:
            changed.clear()
            try:
                async for event in _until_now(state["predictions"], id_, after):
                    retry = None if after else _RETRY
                    data, event_id = event.data.decode(), event.id or None
                    yield format_sse_event(
                        data_str=data, event=event.kind, id=event_id, retry=retry
                    )
                    after = event.id or after
                    if event.kind is EventKind.COMPLETED:
                        return
            except StoreUnavailable:
                changed.set()
                await asyncio.sleep(1)
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), pause)
            if not changed.is_set():
                yield _PING
            pause = min(2 * pause, MAX_PAUSE)


async def _until_now(store: Predictions, id_: PredictionId, after: str) -> AsyncIterator[Event]:
    while events := await store.events(id_, after):
        for event in events:
            is_end = event.kind is EventKind.COMPLETED
            yield replace(event, data=await _completed(store, id_)) if is_end else event
            after = event.id
        if is_end or len(events) < MOST_EVENTS:
            return
    with suppress(UnknownPrediction):
        if (await store.look(id_)).is_active:
            return
    # It expired in the queue, and no worker has recorded it.
    if not await store.events(id_, after):
        yield Event("", EventKind.COMPLETED, await _completed(store, id_))


async def _completed(store: Predictions, id_: PredictionId) -> Json:
    try:
        prediction = await store.read(id_)
    except UnknownPrediction:
        return Json(b'{"status":"erased"}')
    if prediction.output:
        return splice(status=encode(prediction.state), output=prediction.output.to_json())
    message = str(prediction.error) if prediction.error else None
    return Json(to_json({"status": prediction.state, "error": message}))
