"""The statuses of many predictions over one stream (SSE): a browser has few connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi.sse import format_sse_event

from predictor import errors
from predictor.api.events import MAX_PAUSE, PING
from predictor.api.responses import visible
from predictor.api.schemas import PredictionStatus
from predictor.api.state import AppState
from predictor.prediction import PredictionId, encode, parse_id

_PAUSE = 0.1  # seconds between two looks at what has changed
_LATEST = 2.0  # seconds after which one that has not ended is read again: its place changes
_AT_ONCE = 50  # predictions that are read at once


async def watch(state: AppState, ids: list[PredictionId]) -> AsyncIterator[bytes]:
    """The status of each prediction, then each change, until all have ended or the server stops."""
    loop, said = asyncio.get_running_loop(), dict[PredictionId, str]()
    due, spoken = dict.fromkeys(ids, 0.0), loop.time()
    async with AsyncExitStack() as stack:
        enter, subscribe = stack.enter_async_context, state["changes"].subscribe
        changed = {id_: await enter(subscribe(id_)) for id_ in due}
        while due and not state["changes"].is_closing:
            now = loop.time()
            found = [id_ for id_ in due if changed[id_].is_set() or due[id_] <= now][:_AT_ONCE]
            for id_ in found:
                changed[id_].clear()
            for id_, (text, is_active) in zip(found, await _read(state, found), strict=False):
                if said.get(id_) != text:
                    said[id_], spoken = text, now
                    yield format_sse_event(data_str=text, event="status")
                due[id_] = now + _LATEST
                if not is_active:
                    del due[id_]
            if now - spoken > MAX_PAUSE:
                spoken = now
                yield PING
            if len(found) < _AT_ONCE:
                await asyncio.sleep(_PAUSE)


async def _read(state: AppState, ids: list[PredictionId]) -> list[tuple[str, bool]]:
    """The status of each as JSON, and whether it will change; nothing while the store is away."""
    try:
        return await asyncio.gather(*(_status(state, id_) for id_ in ids))
    except errors.StoreUnavailable:
        await asyncio.sleep(1)
        return []


async def _status(state: AppState, id_: PredictionId) -> tuple[str, bool]:
    try:
        prediction = await state["predictions"].look(parse_id(id_, state["owner"]))
    except errors.UnknownPrediction:
        return encode({"prediction_id": id_, "status": "unknown"}).decode(), False
    status = PredictionStatus.model_validate(visible(state, prediction), from_attributes=True)
    return status.model_dump_json(), prediction.is_active
