"""What happens to a prediction, as Server-Sent Events: resumable, from the store's own record."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import HTTPException, Request
from fastapi.sse import ServerSentEvent
from pydantic_core import to_json

from predictor.api.dependencies import LOOK_EVERY, known_prediction, prediction_id, state
from predictor.api.errors import NothingMore
from predictor.api.headers import last_event_id
from predictor.errors import StoreUnavailable
from predictor.prediction import EventKind, Prediction, PredictionId
from predictor.store.predictions import MOST_EVENTS, Predictions

#: Milliseconds after which a browser that was cut off comes back.
_RETRY = 1000


async def resume_point(request: Request) -> str:
    """The event after which this stream goes on. Answers 404, 400, and 204 past the end."""
    after = last_event_id(request.headers)
    prediction = await known_prediction(request)
    if prediction is None:
        raise HTTPException(404)
    if after and not prediction.is_active:
        parts = state(request)
        if not await parts["predictions"].events(prediction.id, after):
            raise NothingMore
    return after


async def follow(request: Request, after: str) -> AsyncIterator[ServerSentEvent]:
    """The events after `after`, those to come too, until it has ended or the server is to stop."""
    parts, id_ = state(request), prediction_id(request)
    assert id_  # noqa: S101 (for the type checker)
    pause = LOOK_EVERY / 16
    async with parts["news"].about(id_) as news:
        while not parts["news"].is_over:
            news.clear()
            try:
                async for event in _until_now(parts["predictions"], id_, after):
                    yield event
                    after = event.id or after
                    if event.event == EventKind.COMPLETED:
                        return
            except StoreUnavailable:
                await asyncio.sleep(1)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), pause)
            pause = min(2 * pause, LOOK_EVERY)


async def _until_now(
    store: Predictions, id_: PredictionId, after: str
) -> AsyncIterator[ServerSentEvent]:
    retry = None if after else _RETRY
    events = await store.events(id_, after)
    while events:
        for event in events:
            is_end = event.kind is EventKind.COMPLETED
            data = _completed(await store.read(id_)) if is_end else event.data
            yield ServerSentEvent(
                raw_data=data.decode(), event=event.kind, id=event.id, retry=retry
            )
            after, retry = event.id, None
        if is_end or len(events) < MOST_EVENTS:
            return
        events = await store.events(id_, after)
    prediction = await store.read(id_)
    # Past the end without a record of it: it expired in the queue, and no worker has come by.
    if not (prediction and prediction.is_active) and not await store.events(id_, after):
        yield ServerSentEvent(raw_data=_completed(prediction).decode(), event=EventKind.COMPLETED)


def _completed(prediction: Prediction | None) -> bytes:
    if prediction is None:
        return b'{"status":"erased"}'
    if prediction.output:
        return b'{"status":"succeeded","output":%b}' % prediction.output.to_json()
    message = prediction.error.message if prediction.error else None
    return to_json({"status": prediction.state, "error": message})
