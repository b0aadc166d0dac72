"""Sync predictions that run in this process."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi.sse import format_sse_event

from predictor import errors
from predictor.api.events import MAX_PAUSE, PING, is_set_within
from predictor.api.headers import SERVER_TIMING, PredictHeaders
from predictor.api.responses import Ended, Outcome, completed
from predictor.api.state import AppState
from predictor.logs import log_end, say_about
from predictor.model.run import Emitter, Events, Run
from predictor.prediction import EventKind, Json, Output, PredictionId, new_id, outcome_of

logger = logging.getLogger(__name__)

_FIRST = 1.2  # seconds for a first event, or an end, before a stream begins with 200
_MOST_UNSENT = 64 * 2**20  # bytes of events for a client that reads too slowly

Emit = Callable[[EventKind, Json], None]
Send = Callable[[int, Events], Awaitable[None]]


async def run(
    state: AppState,
    value: Json,
    options: PredictHeaders,
    emit: Emit = lambda *_: None,
    id_: PredictionId | None = None,
) -> Ended:
    """The outcome of a sync prediction, and its headers."""
    say_about(prediction_id=(id_ := id_ or new_id(state["owner"])))
    began, started = time.monotonic(), 0.0  # 0: not started
    outcome: Outcome | None = None
    try:
        await _begin(state)
        started = time.monotonic()
        try:
            left = (options.cancel_after or math.inf) - (started - began)
            if left <= 0:
                raise errors.TimedOut
            seconds, most = min(state["config"].timeout, left), state["config"].max_result
            live = Run(id_, time.time() + seconds, emit, most)
            outcome = Output(value, await state["model"].run(value, seconds, live))
        finally:
            _end(state, time.monotonic() - started)
    except asyncio.CancelledError:
        outcome = errors.Canceled()  # its client has left
        raise
    except errors.PredictorError as error:
        outcome = error
    finally:
        ended = time.monotonic()
        queue, ran = (started or ended) - began, ended - (started or ended)
        if isinstance(outcome, errors.Overloaded | errors.TooManyRequests):
            state["metrics"].refused(outcome.reason)
        else:
            how = "failed" if outcome is None else outcome_of(outcome)
            state["metrics"].ended(how, ran if started else None)
            log_end(id_, "sync", how, queue, ran)
    return outcome, SERVER_TIMING(queue, ran)


async def _begin(state: AppState) -> None:
    """Take a slot, of the model and of the sender. Raises Overloaded and TooManyRequests."""
    if not state["model"].is_ready:
        message = "The model is still loading; try again later, or with Async-Mode: true."
        raise errors.Overloaded(message, reason="loading")
    if not (quotas := state["quotas"]):
        await state["slots"].take()
        return
    refill = quotas.begin(state["owner"])
    try:
        if refill:
            await refill
        await state["slots"].take()
    except BaseException:
        quotas.end(state["owner"])
        raise


def _end(state: AppState, seconds: float) -> None:
    state["slots"].give_back(seconds)
    if quotas := state["quotas"]:
        quotas.end(state["owner"])


async def events(state: AppState, value: Json, options: PredictHeaders) -> AsyncIterator[bytes]:
    """Nothing, as soon as a response can begin; then the events, and the output.

    Raises the error of a run that ends without an event. A client that leaves ends the run.
    """
    unsent, size, changed = deque[tuple[EventKind, Json]](), 0, asyncio.Event()

    async def send(_: int, new: Events) -> None:
        nonlocal size
        size += sum(len(data) for _, data in new)
        if size > _MOST_UNSENT:
            raise errors.ModelFailed("The client reads the events too slowly.")
        unsent.extend(new)
        changed.set()

    say_about(prediction_id=(id_ := new_id(state["owner"])))
    task = asyncio.create_task(_run_with_events(state, value, options, send, id_))
    task.add_done_callback(lambda _: changed.set())
    try:
        await is_set_within(_FIRST, changed)
        if not unsent and task.done() and isinstance(error := task.result(), Exception):
            raise error
        yield b""
        while unsent or not task.done():
            if not await is_set_within(MAX_PAUSE, changed):
                yield PING
            changed.clear()
            while unsent:
                kind, data = unsent.popleft()
                size -= len(data)
                yield format_sse_event(data_str=data.decode(), event=kind)
        outcome = task.result()
        if isinstance(outcome, errors.ModelFailed):
            logger.error("the model failed", exc_info=outcome)
        data = completed(outcome, is_minimal=options.preferences.is_minimal)
        yield format_sse_event(data_str=data.decode(), event=EventKind.COMPLETED)
    finally:
        task.cancel()


async def _run_with_events(
    state: AppState, value: Json, options: PredictHeaders, send: Send, id_: PredictionId
) -> Outcome:
    emitter = Emitter(send)
    try:
        try:
            return (await run(state, value, options, emitter.emit, id_))[0]
        finally:
            await emitter.close()  # raises what `send` has raised
    except errors.ModelFailed as error:
        return error
