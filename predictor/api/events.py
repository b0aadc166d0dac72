"""Waiting for the end of a prediction, and its events as a resumable stream (SSE)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi.sse import format_sse_event

from predictor import errors
from predictor.api.responses import completed
from predictor.api.state import AppState
from predictor.prediction import Event, EventKind, Json, Prediction, PredictionId
from predictor.store.predictions import MOST_EVENTS, Predictions

MAX_PAUSE = 5.0  # seconds without a notification until it is read again, and its stream pinged
_RETRY = 1000  # milliseconds after which a disconnected browser reconnects
PING = b": ping\n"  # a comment; after an empty line, some clients would take it for an event

EXAMPLE = 'event: progress\ndata: {"fraction":0.4,"message":"4 of 10 pages"}\nid: 3\n\n'


async def wait_for_end(state: AppState, id_: PredictionId, seconds: float) -> Prediction:
    """The prediction as soon as it has ended, or as it is after `seconds`."""
    store, loop = state["predictions"], asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with state["changes"].subscribe(id_, only_end=True) as changed:
        while True:
            changed.clear()
            prediction = await store.look(id_)
            if prediction.output or prediction.error:
                return prediction
            if not prediction.is_active:
                return await store.read(id_)  # with its output, which is large
            left = deadline - loop.time()
            if left <= 0 or state["changes"].is_closing:
                return prediction
            # Notifications are lost while the store is away; an expiry in the queue sends none.
            pause = min(left, MAX_PAUSE, (prediction.expires_in or MAX_PAUSE) + 0.01)
            await is_set_within(pause, changed)


async def is_set_within(seconds: float, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def follow(
    state: AppState, id_: PredictionId, after: str, *, is_minimal: bool
) -> AsyncIterator[bytes]:
    """The events after the event `after`, until the prediction has ended or the server stops."""
    store, pause = state["predictions"], MAX_PAUSE / 16
    async with state["changes"].subscribe(id_) as changed:
        while not state["changes"].is_closing:
            changed.clear()
            try:
                async for event in _until_now(store, id_, after):
                    is_end, data = event.kind is EventKind.COMPLETED, event.data
                    if is_end:
                        data = await _completed(store, id_, is_minimal=is_minimal)
                    text, retry = data.decode(), None if after else _RETRY
                    yield format_sse_event(
                        data_str=text, event=event.kind, id=event.id or None, retry=retry
                    )
                    if is_end:
                        return
                    after = event.id
            except errors.StoreUnavailable:
                await asyncio.sleep(1)
                continue
            if not await is_set_within(pause, changed):
                yield PING
            pause = min(2 * pause, MAX_PAUSE)


async def _until_now(store: Predictions, id_: PredictionId, after: str) -> AsyncIterator[Event]:
    while events := await store.events(id_, after):
        for event in events:
            yield event
            after = event.id
        if event.kind is EventKind.COMPLETED or len(events) < MOST_EVENTS:
            return
    with suppress(errors.UnknownPrediction):
        if (await store.look(id_)).is_active:
            return
    # It expired in the queue, and no worker has recorded it.
    if not await store.events(id_, after):
        yield Event("", EventKind.COMPLETED, Json(b""))


async def _completed(store: Predictions, id_: PredictionId, *, is_minimal: bool) -> Json:
    try:
        prediction = await store.read(id_)
    except errors.UnknownPrediction:
        return Json(b'{"status":"erased"}')
    outcome = prediction.output or prediction.error or errors.Unreadable()
    return completed(outcome, is_minimal=is_minimal)
