"""One worker process: its start, the predictions it runs, and its stop at a signal."""

import asyncio
import contextlib
import functools
import gc
import logging
import math
import os
import secrets
import socket
import sys
import threading
import time
from typing import Any

from arq.worker import RetryJob, func

from predictor import errors
from predictor.config import Config
from predictor.logs import configure_logging, say_about
from predictor.model.loading import configured_model, start_model
from predictor.model.run import Emitter, Run
from predictor.prediction import Json, Output, PredictionId, Trace
from predictor.process import ends_if_misconfigured, notify_ready, on_stop
from predictor.store.claims import Claim, Claims
from predictor.store.connection import blocking_client, check_server, connect
from predictor.store.keys import HEALTH
from predictor.store.renewal import Renewal
from predictor.store.retry import STORE_ERRORS, StoreRetry
from predictor.store.wire import FUNCTION, decode_job
from predictor.traces import Traces, start_tracing
from predictor.worker.arq_pool import ClaimingRedis

logger = logging.getLogger(__package__)

_STORE_TIMEOUT = 5.0  # seconds of silence of the store after which a command is sent again
_GRACE = 0.5  # seconds past the drain after which the process is ended by force
_MOST_OTHERS = 100  # other models that are logged: anybody may write jobs
_HEALTH_KEY = HEALTH + socket.gethostname()


def is_alive(url: str) -> bool:
    """Whether the store knows that a worker of this machine gave a sign of life lately."""
    with contextlib.suppress(*STORE_ERRORS):
        return bool(blocking_client(url, socket_timeout=_STORE_TIMEOUT).exists(_HEALTH_KEY))
    return False


class Worker:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._drain = config.drain
        self._starting: asyncio.Task[Any] | None = None
        self._traces: Traces | None = None
        store = connect(config.store_url, silence=_STORE_TIMEOUT, socket_connect_timeout=1)
        self._claims = Claims(
            config,
            StoreRetry(store),
            worker=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            slots=lambda: self._model.slots(config.slots) - self._model.abandoned,
        )
        self._redis = ClaimingRedis(self._claims)
        self._renewal = Renewal(config, self._claims, self._cancel)
        self._running: dict[PredictionId, asyncio.Task[Any] | None] = {}  # and are not canceled
        self._others: set[tuple[str, ...]] = set()  # models and versions: of other predictions

    def settings(self) -> dict[str, Any]:
        """arq's settings. Connects to nothing."""
        return {
            "functions": [func(self.predict, name=FUNCTION)],
            "redis_pool": self._redis,  # which names the queue
            "job_deserializer": self._redis.job_deserializer,
            "on_startup": self._start,
            "on_shutdown": self._stop,
            "poll_delay": 0,  # a poll waits by itself
            # Slots, timeout, tries, results and the end are ours: arq's limits are never reached.
            "max_jobs": sys.maxsize // 10,
            "job_timeout": None,
            "max_tries": sys.maxsize,
            "keep_result": 0,
            "log_results": False,
            "health_check_interval": 10,
            "health_check_key": _HEALTH_KEY,
        }

    async def _start(self, _ctx: dict[Any, Any]) -> None:
        """Check the store and load the model, then notify that this worker is ready."""
        configure_logging(self._config.log_format, self._config.log_level)  # arq has changed it
        self._starting, self._traces = asyncio.current_task(), start_tracing()
        # Not arq's handlers: a drain is ours, and arq would poll without a pause meanwhile.
        on_stop(functools.partial(self._on_signal, asyncio.get_running_loop()), instead=True)
        with ends_if_misconfigured():
            retry = self._claims.retry
            check_server(await retry.until_answered(retry.redis.info))
            self._model = configured_model(self._config)
            await start_model(self._config.model, self._model)
        slots = self._model.slots(self._config.slots)
        await self._renewal.start(slots)
        self._starting = None
        gc.freeze()  # what is loaded stays: no collection needs to look through it
        notify_ready()
        logger.info("worker ready: %s, %d at once", self._config.model, slots)

    async def predict(self, ctx: dict[Any, Any]) -> None:
        """arq's job. Raises the prediction's error after it was stored, so that arq logs it."""
        claim = self._claims.held[PredictionId(ctx["job_id"])]
        say_about(prediction_id=claim.id)
        try:
            outcome = await (self._traced(claim) if self._traces else self._outcome(claim))
        except errors.PredictionError as error:
            await self._claims.finish(claim, error)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._claims.requeue(claim.id))
            raise RetryJob from None
        except Exception as error:  # a bug of ours: it must not hold the slot
            await self._claims.finish(claim, failure := errors.ModelFailed())
            raise failure from error
        await self._claims.finish(claim, outcome)  # which nothing cancels: it runs no more

    async def _traced(self, claim: Claim) -> Output:
        """As `_outcome`, and its spans."""
        parent: Trace = {}
        with contextlib.suppress(errors.Unreadable):
            parent = decode_job(claim.job).trace
        if not (self._traces and parent):
            return await self._outcome(claim)
        lost = await self._claims.lost(claim) if claim.tries != 1 else []
        with self._traces.run(parent, claim.id, claim.queued_at, claim.token, lost):
            return await self._outcome(claim)

    async def _outcome(self, claim: Claim) -> Output:
        """The output. Raises errors.PredictionError, and CancelledError if it is to be requeued."""
        if claim.verdict == "expired" and claim.tries:
            raise errors.TimedOut
        if claim.verdict:
            raise errors.BY_CODE[claim.verdict]
        job = decode_job(claim.job)
        self._compare(job.model, job.model_version)
        left = (job.cancel_after or math.inf) - claim.waited
        self._running[claim.id] = asyncio.current_task()
        try:
            seconds = min(self._config.timeout, left)
            return Output(job.input, await self._run(claim.id, job.input, seconds))
        except errors.TimedOut as error:
            raise errors.TimedOut if left < self._config.timeout else error from None
        except asyncio.CancelledError:
            if claim.id not in self._running:
                raise errors.Canceled from None
            raise
        finally:
            self._running.pop(claim.id, None)

    def _compare(self, *accepted: str) -> None:
        """Log, once for each, that predictions were accepted for another model than this one."""
        runs = self._config.model, self._config.model_version
        if accepted not in {runs, ("", ""), *self._others} and len(self._others) < _MOST_OTHERS:
            self._others.add(accepted)
            message = "predictions were accepted for model %r %r; this worker runs %r %r"
            logger.warning(message, *accepted, *runs)

    async def _run(self, id_: PredictionId, value: Json, seconds: float) -> Json:
        if not (self._model.signature.streams or self._model.signature.run):  # it has no events
            return await self._model.run(value, seconds)
        emitter = Emitter()
        run = Run(id_, time.time() + seconds, emitter.emit, self._config.max_result)
        # A task of its own: a cancel of the prediction must not reach a wait for the store.
        sending = asyncio.create_task(self._send(id_, emitter))
        try:
            return await self._model.run(value, seconds, run)
        finally:
            emitter.close()
            await asyncio.shield(sending)

    async def _send(self, id_: PredictionId, emitter: Emitter) -> None:
        sent = 0
        while events := await emitter.take():
            await self._claims.emit(id_, sent + 1, events)
            sent += len(events)

    def _cancel(self, id_: PredictionId) -> None:
        """End a run whose result is no longer wanted."""
        if task := self._running.pop(id_, None):
            task.cancel()

    def _interrupt(self) -> None:
        """End all runs; each prediction that does not finish is requeued."""
        for task in filter(None, self._running.values()):
            task.cancel()

    def _on_signal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the drain; a second signal ends it at once."""
        drain, self._drain = self._drain, 0.0
        if self._starting:
            loop.call_soon_threadsafe(self._starting.cancel)
        loop.call_soon_threadsafe(self._claims.stop_claiming, drain + _GRACE / 2)
        loop.call_soon_threadsafe(loop.call_later, drain, self._interrupt)
        # A thread, because a model, or a wait that swallowed arq's cancel, can block the loop.
        watchdog = threading.Timer(drain + _GRACE, self._exit)
        watchdog.daemon = True
        watchdog.start()

    async def _stop(self, _ctx: dict[Any, Any]) -> None:
        """Return unfinished predictions to the queue."""
        await self._claims.requeue(*self._claims.held)
        await self._renewal.stop()
        if hasattr(self, "_model"):  # it was loaded
            await self._model.close()
        if self._traces:
            await self._traces.close()
        if count := self._claims.requeued:
            logger.info("worker stopped; predictions requeued: %d", count)

    def _exit(self) -> None:
        """End the process by force, from a thread."""
        count = self._claims.requeued + len(self._claims.held)
        logger.warning("not drained in time; worker stopped; predictions requeued: %d", count)
        self._renewal.requeue_now(also_delete=_HEALTH_KEY)
        os._exit(0)
