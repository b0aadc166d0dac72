"""The events of a prediction as Server-Sent Events, resumable, from the stream in the store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi.sse import format_sse_event
from pydantic_core import to_json

from predictor.api.dependencies import AppState
from predictor.api.waiting import LOOK_EVERY
from predictor.errors import StoreUnavailable
from predictor.prediction import Event, EventKind, Json, Prediction, PredictionId, encode, splice
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
            data = _completed(await store.read(id_)) if is_end else event.data
            yield Event(event.id, event.kind, data)
            after = event.id
        if is_end or len(events) < MOST_EVENTS:
            return
        events = await store.events(id_, after)
    prediction = await store.look(id_)
    # Past the end without a record of it: it expired in the queue, and no worker has come by.
    if not (prediction and prediction.is_active) and not await store.events(id_, after):
        yield Event("", EventKind.COMPLETED, _completed(prediction))


def _completed(prediction: Prediction | None) -> Json:
    if prediction is None:
        return Json(b'{"status":"erased"}')
    if prediction.output:
        return splice(status=encode(prediction.state), output=prediction.output.to_json())
    message = prediction.error.message if prediction.error else None
    return Json(to_json({"status": prediction.state, "error": message}))
