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


async def watch(state: AppState, ids: list[PredictionId]) -> AsyncIterator[bytes]:
    """The status of each prediction, then each change, until all have ended or the server stops."""
    loop, said = asyncio.get_running_loop(), dict[PredictionId, str]()
    due, spoken = dict.fromkeys(ids, 0.0), loop.time()
    async with AsyncExitStack() as stack:
        enter, subscribe = stack.enter_async_context, state["changes"].subscribe
        changed = {id_: await enter(subscribe(id_)) for id_ in due}
        while due and not state["changes"].is_closing:
            now = loop.time()
            for id_ in [id_ for id_ in due if changed[id_].is_set() or due[id_] <= now]:
                changed[id_].clear()
                try:
                    text, is_active = await _status(state, id_)
                except errors.StoreUnavailable:
                    await asyncio.sleep(1)
                    break
                if said.get(id_) != text:
                    said[id_], spoken = text, now
                    yield format_sse_event(data_str=text, event="status")
                due[id_] = now + _LATEST
                if not is_active:
                    del due[id_]
            if now - spoken > MAX_PAUSE:
                spoken = now
                yield PING
            await asyncio.sleep(_PAUSE)


async def _status(state: AppState, id_: PredictionId) -> tuple[str, bool]:
    """The status as JSON, and whether it will change."""
    try:
        prediction = await state["predictions"].look(parse_id(id_, state["owner"]))
    except errors.UnknownPrediction:
        return encode({"prediction_id": id_, "status": "unknown"}).decode(), False
    status = PredictionStatus.model_validate(visible(state, prediction), from_attributes=True)
    return status.model_dump_json(), prediction.is_active
