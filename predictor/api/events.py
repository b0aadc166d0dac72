"""Waiting for the end of a prediction, its events, and the statuses of many, as streams (SSE)."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

from fastapi.sse import format_sse_event
from pydantic_core import to_json

from predictor import errors
from predictor.api.responses import completed, visible
from predictor.api.schemas import PredictionStatus
from predictor.api.state import AppState
from predictor.logs import say_about
from predictor.prediction import Event, EventKind, Job, Json, Prediction, PredictionId, new_id
from predictor.process import is_set_within
from predictor.store.changes import give_up
from predictor.store.predictions import MOST_EVENTS, Predictions, Submitted

MAX_PAUSE = 5.0  # seconds without a notification until it is read again, and its stream pinged
_RETRY = 1000  # milliseconds after which a disconnected browser reconnects
PING = b": ping\n"  # a comment; after an empty line, some clients would take it for an event
_LOOK = 0.1  # seconds between two looks at which of many have changed
_LATEST = 2.0  # seconds after which one that has not ended is read again: its place changes

#: A prediction that was just submitted, when it has ended, and the seconds until it may expire.
Expected = tuple[asyncio.Future[Prediction | None], float]

EXAMPLE = 'event: progress\ndata: {"fraction":0.4,"message":"4 of 10 pages"}\nid: 3\n\n'


async def submit(
    state: AppState, job: Job, *, is_awaited: bool
) -> tuple[Submitted, Expected | None]:
    """Submit a prediction; `is_awaited`: `wait_for_end` gets what this returns for it."""
    store, changes, id_ = state["predictions"], state["changes"], new_id(state["owner"])
    say_about(prediction_id=id_)
    if traces := state["traces"]:
        job = job._replace(trace=traces.current())
    running = state["limits"].running(state["owner"])
    if not is_awaited:
        return await store.submit(id_, job, running=running), None
    ended = changes.expect(id_)
    submitted = None
    try:
        submitted = await store.submit(id_, job, changes.channel, running)
    finally:
        if not submitted or submitted.id != id_:
            ended.cancel()
    return submitted, None if ended.cancelled() else (ended, job.cancel_after or math.inf)


async def wait_for_end(
    state: AppState,
    id_: PredictionId,
    seconds: float,
    expected: Expected | None = None,
    *,
    drains: bool = False,
) -> Prediction:
    """The prediction at its end, after `seconds` or, unless it `drains`, when the server stops."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    patience = deadline if drains else 0
    if expected:
        ended, expires_in = expected
        pause = min(seconds, MAX_PAUSE, expires_in + 0.01)
        # asyncio.timeout would take 3 % of all that the api does for a prediction.
        timer = loop.call_later(pause, give_up, ended)
        try:
            if prediction := await ended:
                return prediction
        finally:
            timer.cancel()
    async with state["changes"].subscribe(id_, only_end=True) as changed:
        while True:
            changed.clear()
            prediction = await _read(state["predictions"], id_, patience)
            left = deadline - loop.time()
            is_over = left <= 0 or (state["changes"].is_closing and not drains)
            if is_over or not prediction.is_active:
                return prediction
            # Notifications are lost while the store is away; an expiry in the queue sends none.
            pause = min(left, MAX_PAUSE, (prediction.expires_in or MAX_PAUSE) + 0.01)
            await is_set_within(pause, changed)


async def _read(store: Predictions, id_: PredictionId, until: float) -> Prediction:
    """The prediction; it is read again until then. Raises StoreUnavailable after that."""
    while True:
        try:
            return await store.read(id_)
        except errors.StoreUnavailable:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(1)


async def follow(
    state: AppState, id_: PredictionId, after: str, *, is_minimal: bool, drains: bool = False
) -> AsyncIterator[bytes]:
    """The events after `after`, until the end or, unless it `drains`, until the server stops."""
    store, pause = state["predictions"], MAX_PAUSE / 16
    async with state["changes"].subscribe(id_) as changed:
        while drains or not state["changes"].is_closing:
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
            await asyncio.sleep(_LOOK)


async def _status(state: AppState, id_: PredictionId) -> tuple[str, bool]:
    """The status as JSON, and whether it will change."""
    with suppress(errors.UnknownPrediction):
        if id_.startswith(state["owner"]):
            prediction = visible(state, await state["predictions"].look(id_))
            status = PredictionStatus.model_validate(prediction, from_attributes=True)
            return status.model_dump_json(), prediction.is_active
    return to_json({"prediction_id": id_, "status": "unknown"}).decode(), False
