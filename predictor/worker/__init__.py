"""Runs predictions: what `arq predictor.worker.Settings` starts. Knows no HTTP and no key."""

import asyncio
import functools
import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

import uvloop
from arq.worker import RetryJob, func
from redis.asyncio import Redis

from predictor.config import Config
from predictor.errors import (
    CANNOT_START,
    Canceled,
    ConfigError,
    Expired,
    GivenUp,
    PredictionError,
    TimedOut,
    UnsuitableStore,
)
from predictor.model.loading import load_model
from predictor.model.model import Model
from predictor.model.run import Run
from predictor.prediction import Json, Output, PredictionId
from predictor.process import configure_logging, disown_forks, ends_if_misconfigured, notify_ready
from predictor.store.claims import Claim, Claims, Terms
from predictor.store.connection import arq_settings, connection_pool
from predictor.store.keys import HEALTH, QUEUE
from predictor.store.patience import Patience
from predictor.store.renewal import Renewal
from predictor.store.wire import FUNCTION, decode_job
from predictor.worker.arq_pool import ClaimingRedis
from predictor.worker.emitter import Feed

logger = logging.getLogger(__name__)

#: Seconds between two looks of arq while predictions keep coming: it gathers what comes meanwhile.
_GATHER = 0.005

#: Seconds past the drain, or past a second signal, after which the process ends whatever holds it.
_PATIENCE_AT_EXIT = 0.5

#: Seconds of silence of the store after which it is asked again.
_STORE_TIMEOUT = 5.0


class Worker:
    """One worker process: what arq's hooks and its one function do."""

    def __init__(self, config: Config, url: str) -> None:
        self._config = config
        self._model: Model
        self._loop: asyncio.AbstractEventLoop
        self._patience = Patience()
        pool = connection_pool(url, silence=_STORE_TIMEOUT, socket_connect_timeout=1)
        terms = Terms(
            worker=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            lease=config.lease,
            result_ttl=config.result_ttl,
            max_tries=config.max_tries,
            timeout=config.timeout,
        )
        self._claims = Claims(
            Redis(connection_pool=pool),
            self._patience,
            terms,
            slots=lambda: config.concurrency - self._model.abandoned,
        )
        self.redis = ClaimingRedis(pool, self._patience, self._claims)
        self._renewal = Renewal(url, self._claims, self._end)
        self._running: dict[PredictionId, asyncio.Task[Any]] = {}
        self._over: set[PredictionId] = set()
        self._signals = 0

    async def start(self, _: dict[Any, Any]) -> None:
        """Look at the store and load the model, then say that this worker is ready."""
        configure_logging(self._config)
        self._loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            # Beside arq's handler, not instead of it: the loop reads the signal's number from its
            # wake-up pipe, whatever Python-level handler there is.
            signal.signal(signum, self._on_signal)
        disown_forks()
        try:
            even_if_full = await self._claims.open()
            renewing = asyncio.create_task(self._renewal.start(even_if_full=even_if_full))
            self._model = load_model(self._config.model, self._config.max_result)
        except (ConfigError, UnsuitableStore) as error:
            logger.error("%s", error)  # noqa: TRY400 (one line)
            sys.exit(CANNOT_START)
        await renewing
        notify_ready()
        logger.info("worker ready: %s, %d at once", self._config.model, self._config.concurrency)

    async def predict(self, ctx: dict[Any, Any]) -> None:
        """arq's job, from its claim to its end. Raises why it failed, so that arq logs that."""
        claim = self._claims.held[PredictionId(ctx["job_id"])]
        outcome: Output | PredictionError
        try:
            outcome = await self._outcome(claim)
        except PredictionError as error:
            outcome = error
        except asyncio.CancelledError:
            await asyncio.shield(self._claims.give_back(claim.id))
            raise RetryJob from None
        await asyncio.shield(self._claims.finish(claim, outcome))
        if isinstance(outcome, PredictionError):
            raise outcome

    async def _outcome(self, claim: Claim) -> Output:
        """What the model makes of it. Raises why there is nothing, or CancelledError."""
        match claim.verdict:
            case "canceled":
                raise Canceled
            case "given_up":
                raise GivenUp
            case "expired":
                raise TimedOut if claim.tries else Expired
        job, task = decode_job(claim.job), asyncio.current_task()
        assert task is not None  # noqa: S101 (for the type checker)
        left = (job.cancel_after or math.inf) - claim.waited
        self._running[claim.id] = task
        try:
            seconds = min(self._config.timeout, left)
            return Output(job.input, await self._run(claim.id, job.input, seconds))
        except TimedOut as error:
            raise TimedOut if left < self._config.timeout else error from None
        except asyncio.CancelledError:
            if claim.id in self._over:
                raise Canceled from None
            raise
        finally:
            del self._running[claim.id]
            self._over.discard(claim.id)

    async def _run(self, id_: PredictionId, text: str, seconds: float) -> Json:
        if not self._model.takes_run:
            return await self._model.run(text, seconds)
        feed = Feed(functools.partial(self._claims.emit, id_))
        run = Run(id_, time.time() + seconds, feed.say, self._config.max_result)
        try:
            return await self._model.run(text, seconds, run)
        finally:
            # A cancel is the prediction's, and must not reach a wait for the store: see Patience.
            await asyncio.shield(asyncio.create_task(feed.end()))

    async def stop(self, _: dict[Any, Any]) -> None:
        """Return what was not finished to the queue."""
        await self._claims.give_back(*list(self._claims.held))
        await self._renewal.stop()
        if "--watch" in sys.argv and not self._signals:
            # arq would go on with the modules, and the connection, that it has.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606

    def _end(self, ids: Iterable[PredictionId]) -> None:
        """End runs whose outcome nobody waits for any more."""
        for id_ in ids:
            if task := self._running.get(id_):
                self._over.add(id_)
                task.cancel()

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._signals += 1
        drain = self._config.drain if self._signals == 1 else 0
        self._loop.call_soon_threadsafe(self._leave, drain)
        # The loop may be held by a model, or by a wait that swallowed arq's cancel: a thread sees
        # to it that the process ends.
        watchdog = threading.Timer(drain + _PATIENCE_AT_EXIT, self._exit)
        watchdog.daemon = True
        watchdog.start()

    def _leave(self, drain: float) -> None:
        self._claims.leave()
        self._patience.end_in(drain + _PATIENCE_AT_EXIT / 2)
        self._loop.call_later(drain, self._interrupt)

    def _interrupt(self) -> None:
        """End what still runs: each prediction whose run ends so is given back."""
        for task in self._running.values():
            task.cancel()

    def _exit(self) -> None:
        logger.warning("not done in time: what still runs goes back to the queue")
        self._renewal.hand_back(also_delete=_health_key())
        os._exit(0)


def _health_key() -> str:
    return HEALTH + socket.gethostname()


def worker_settings(config: Config) -> dict[str, Any]:
    """arq's settings for one worker process. Connects to nothing."""
    url = config.store_url
    worker = Worker(config, url)
    return {
        "functions": [func(worker.predict, name=FUNCTION)],
        "queue_name": QUEUE,
        "redis_pool": worker.redis,
        "job_deserializer": worker.redis.job_deserializer,
        "redis_settings": arq_settings(url),
        "on_startup": worker.start,
        "on_shutdown": worker.stop,
        "poll_delay": _GATHER,
        # The slots are counted by the claims, the time by the model, the tries by `predict`: arq's
        # own limits only have to be out of the way. So does its wait at exit, for `_leave` ends it.
        "max_jobs": 2 * config.concurrency + 10,
        "job_timeout": None,
        "max_tries": sys.maxsize,
        "keep_result": 0,  # `predict` writes it
        "log_results": False,
        "job_completion_wait": math.ceil(config.drain) + 5,
        "health_check_interval": 10,
        "health_check_key": _health_key(),
    }


def __getattr__(name: str) -> Any:
    """`Settings`, made when arq asks for it: importing this module reads no environment."""
    if name != "Settings":
        raise AttributeError(name)
    with ends_if_misconfigured():
        settings = worker_settings(Config())
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.set_event_loop(uvloop.new_event_loop())
    return settings
