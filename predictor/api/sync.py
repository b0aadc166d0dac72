"""Sync predictions that run in this process."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable

from fastapi.sse import format_sse_event

from predictor import errors
from predictor.api.events import MAX_PAUSE, PING
from predictor.api.headers import SERVER_TIMING, PredictHeaders
from predictor.api.responses import Ended, Outcome, completed
from predictor.api.state import AppState
from predictor.logs import log_end, say_about
from predictor.model.run import Emitter, Run
from predictor.prediction import EventKind, Json, Output, PredictionId, new_id, outcome_of

logger = logging.getLogger(__name__)

#: Seconds for a first event, or an end, before a stream begins with 200: longer than for a slot.
_FIRST = 1.5


async def run(
    state: AppState,
    value: Json,
    options: PredictHeaders,
    emit: Callable[[EventKind, Json], None] = lambda *_: None,
    id_: PredictionId | None = None,
) -> Ended:
    """The outcome of a sync prediction, and its headers."""
    say_about(prediction_id=(id_ := id_ or new_id(state["owner"])))
    began, started = time.monotonic(), 0.0  # 0: not started
    outcome: Outcome | None = None
    try:
        await state["limits"].take(state["owner"])
        started = time.monotonic()
        try:
            left = (options.cancel_after or math.inf) - (started - began)
            if left <= 0:
                raise errors.TimedOut
            seconds, most = min(state["config"].timeout, left), state["config"].max_result
            live = Run(id_, time.time() + seconds, emit, most)
            outcome = Output(value, await state["model"].run(value, seconds, live))
        finally:
            state["limits"].give_back(state["owner"], time.monotonic() - started)
    except asyncio.CancelledError:
        outcome = errors.Canceled()  # its client has left
        raise
    except errors.PredictorError as error:
        outcome = error
    finally:
        ended = time.monotonic()
        queue, ran = (started or ended) - began, ended - (started or ended)
        if isinstance(outcome, errors.Overloaded):
            state["metrics"].refused(outcome.reason)
        else:
            how = "failed" if outcome is None else outcome_of(outcome)
            state["metrics"].ended(how, ran if started else None)
            log_end(id_, "sync", how, queue, ran)
    return outcome, SERVER_TIMING(queue, ran)


async def events(state: AppState, value: Json, options: PredictHeaders) -> AsyncIterator[bytes]:
    """Nothing, as soon as a response can begin; then the events, and the output.

    Raises the error of a run that ends without an event. A client that leaves ends the run.
    """
    say_about(prediction_id=(id_ := new_id(state["owner"])))
    emitter = Emitter()
    task = asyncio.create_task(run(state, value, options, emitter.emit, id_))
    task.add_done_callback(lambda _: emitter.close())
    try:
        new = await emitter.take(_FIRST)
        if not new and task.done() and isinstance(error := task.result()[0], Exception):
            raise error
        yield b""
        while new or not task.done():
            for kind, data in new:
                yield format_sse_event(data_str=data.decode(), event=kind)
            new = await emitter.take(MAX_PAUSE)
            if not (new or task.done()):
                yield PING
        outcome, _ = task.result()
        if isinstance(outcome, errors.ModelFailed):
            logger.error("the model failed", exc_info=outcome)
        data = completed(outcome, is_minimal=options.preferences.is_minimal)
        yield format_sse_event(data_str=data.decode(), event=EventKind.COMPLETED)
    finally:
        task.cancel()
