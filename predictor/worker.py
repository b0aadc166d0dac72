"""Runs predictions: what `arq predictor.worker.Settings` starts. Knows no HTTP and no key."""

import asyncio
import logging
import math
import os
import secrets
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvloop
from arq.worker import RetryJob, func

from predictor.config import Config
from predictor.errors import CANNOT_START, ConfigError, GivenUp, ModelFailed
from predictor.logs import configure_logging
from predictor.model import Model, load_model
from predictor.notify import notify_ready
from predictor.prediction import Json
from predictor.store.arq_redis import ClaimingRedis
from predictor.store.claims import Claims
from predictor.store.connection import DEFAULT_URL, arq_settings, connection_pool
from predictor.store.keys import HEALTH, QUEUE
from predictor.store.renewal import Renewal
from predictor.store.wire import FUNCTION

logger = logging.getLogger(__name__)

#: Seconds between two looks of arq while predictions keep coming: it gathers what comes meanwhile.
_GATHER = 0.005

#: Seconds past the drain after which arq stops waiting by itself: nothing should be left by then.
_MARGIN = 5


class Worker:
    """One worker process: what arq's hooks and its one function do."""

    def __init__(self, config: Config, redis: ClaimingRedis, url: str) -> None:
        self._config = config
        self._model: Model
        self._loop: asyncio.AbstractEventLoop
        self._claims = redis.claims = Claims(
            redis,
            worker=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            lease=config.lease,
            queue_ttl=config.queue_ttl,
            result_ttl=config.result_ttl,
            slots=lambda: config.concurrency - self._model.abandoned,
        )
        self._renewal = Renewal(url, self._claims, lease=config.lease)
        self._running: set[asyncio.Task[Any]] = set()
        self._leaving = False

    async def start(self, _: dict[Any, Any]) -> None:
        """Load the model, then say that this worker is ready."""
        configure_logging(self._config)
        self._loop = asyncio.get_running_loop()
        try:
            self._model = load_model(self._config.model)
        except ConfigError as error:
            logger.error("%s", error)  # noqa: TRY400 (one line)
            sys.exit(CANNOT_START)
        self._renewal.start()
        for signum in (signal.SIGTERM, signal.SIGINT):
            # Beside arq's handler, not instead of it: the loop reads the signal's number from its
            # wake-up pipe, whatever Python-level handler there is.
            signal.signal(signum, self._on_signal)
        notify_ready()
        logger.info("worker ready: %s, %d at once", self._config.model, self._config.concurrency)

    async def predict(self, ctx: dict[Any, Any], text: str) -> Json:
        """arq's job: run the model on `text`. Raises what goes into the result."""
        if ctx["job_try"] > self._config.max_tries:
            raise GivenUp
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (for the type checker)
        self._running.add(task)
        try:
            return await self._model.run(str(text), self._config.timeout)
        except asyncio.CancelledError:
            if self._leaving:
                raise RetryJob from None
            raise ModelFailed from None
        finally:
            self._running.discard(task)

    async def stop(self, _: dict[Any, Any]) -> None:
        """Return what was not finished to the queue."""
        await self._claims.give_back(*self._claims.held.values())
        self._renewal.stop()
        if "--watch" in sys.argv and not self._leaving:
            # arq would go on with the modules, and the connection, that it has.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        if self._leaving:
            self._interrupt()
            return
        self._leaving = True
        self._claims.leave()
        self._loop.call_later(self._config.drain, self._interrupt)

    def _interrupt(self) -> None:
        """End what still runs; arq gives back each prediction whose run ends so."""
        for task in self._running:
            task.cancel()


def worker_settings(config: Config) -> dict[str, Any]:
    """arq's settings for one worker process. Connects to nothing."""
    url = config.redis_url.get_secret_value() if config.redis_url else DEFAULT_URL
    redis = ClaimingRedis(connection_pool(url))
    worker = Worker(config, redis, url)
    return {
        "functions": [func(worker.predict, name=FUNCTION)],
        "queue_name": QUEUE,
        "redis_pool": redis,
        "job_serializer": redis.job_serializer,
        "job_deserializer": redis.job_deserializer,
        "redis_settings": arq_settings(url),
        "on_startup": worker.start,
        "on_shutdown": worker.stop,
        "poll_delay": _GATHER,
        # The slots are counted by the claims, the time by the model, the tries by `predict`: arq's
        # own limits only have to be out of the way.
        "max_jobs": 2 * config.concurrency + 10,
        "job_timeout": None,
        "max_tries": sys.maxsize,
        "keep_result": config.result_ttl,
        "log_results": False,
        "job_completion_wait": math.ceil(config.drain) + _MARGIN,
        "health_check_interval": 10,
        "health_check_key": HEALTH + socket.gethostname(),
    }


def __getattr__(name: str) -> Any:
    """`Settings`, made when arq asks for it: importing this module reads no environment."""
    if name != "Settings":
        raise AttributeError(name)
    try:
        settings = worker_settings(Config())
    except ConfigError as error:
        print(f"predictor: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(CANNOT_START)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.set_event_loop(uvloop.new_event_loop())
    return settings
