"""The worker process, which `arq predictor.worker.Settings` starts. Knows no HTTP and no key."""

import asyncio
import functools
import logging
import math
import os
import secrets
import socket
import sys
from typing import Any

import uvloop
from arq.worker import func
from redis.asyncio import Redis

from predictor.config import Config
from predictor.errors import ConfigError
from predictor.process import configure_logging, ends_if_misconfigured, notify_ready
from predictor.store.claims import Claims
from predictor.store.connection import arq_settings, connection_pool
from predictor.store.keys import HEALTH, QUEUE
from predictor.store.renewal import Renewal
from predictor.store.retry import StoreRetry
from predictor.store.wire import FUNCTION
from predictor.worker.arq_pool import ClaimingRedis
from predictor.worker.execution import Executor
from predictor.worker.shutdown import Shutdown

logger = logging.getLogger(__name__)

#: Seconds between two polls of arq while there is work: claims are collected meanwhile.
_POLL_DELAY = 0.005

#: Seconds of silence of the store after which a command is sent again.
_STORE_TIMEOUT = 5.0

_HEALTH_KEY = HEALTH + socket.gethostname()


class Worker:
    """The parts of one worker process; `start` and `stop` are arq's hooks."""

    def __init__(self, config: Config) -> None:
        url = config.store_url
        self._config = config
        pool = connection_pool(url, silence=_STORE_TIMEOUT, socket_connect_timeout=1)
        self._claims = Claims(
            config,
            StoreRetry(Redis(connection_pool=pool)),
            worker=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            slots=lambda: config.concurrency - self.executor.model.abandoned,
        )
        self.executor = Executor(config, self._claims)
        self.redis = ClaimingRedis(pool, self._claims)
        self._renewal = Renewal(config, self._claims, self.executor.cancel)

    async def start(self, _ctx: dict[Any, Any]) -> None:
        """Check the store and load the model, then notify that this worker is ready."""
        configure_logging(self._config)
        requeue = functools.partial(self._renewal.requeue_now, also_delete=_HEALTH_KEY)
        Shutdown(self._config.drain, self._claims, self.executor, requeue)
        with ends_if_misconfigured():
            await self._claims.open()
            _ = self.executor.model  # loaded now
        await self._renewal.start()
        notify_ready()
        logger.info("worker ready: %s, %d at once", self._config.model, self._config.concurrency)

    async def stop(self, _ctx: dict[Any, Any]) -> None:
        """Return unfinished predictions to the queue."""
        await self.executor.requeue(*list(self._claims.held))
        await self._renewal.stop()
        if count := self.executor.requeued:
            logger.info("worker stopped; predictions requeued: %d", count)


def worker_settings(config: Config) -> dict[str, Any]:
    """arq's settings for one worker process. Connects to nothing."""
    worker = Worker(config)
    return {
        "functions": [func(worker.executor.predict, name=FUNCTION)],
        "queue_name": QUEUE,
        "redis_pool": worker.redis,
        "job_deserializer": worker.redis.job_deserializer,
        "redis_settings": arq_settings(config.store_url),
        "on_startup": worker.start,
        "on_shutdown": worker.stop,
        "poll_delay": _POLL_DELAY,
        # Slots, timeout, tries and results are ours, so arq's own limits must never be reached. Nor
        # must its wait at exit: `Shutdown` ends it.
        "max_jobs": 2 * config.concurrency + 10,
        "job_timeout": None,
        "max_tries": sys.maxsize,
        "keep_result": 0,
        "log_results": False,
        "job_completion_wait": math.ceil(config.drain) + 5,
        "health_check_interval": 10,
        "health_check_key": _HEALTH_KEY,
    }


def _use_uvloop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.set_event_loop(uvloop.new_event_loop())


def __getattr__(name: str) -> Any:
    """`Settings`, made when arq asks for it: importing this module reads no environment."""
    if name != "Settings":
        raise AttributeError(name)
    with ends_if_misconfigured():
        if "--watch" in sys.argv:
            raise ConfigError(
                "arq's --watch does not load changed code; instead, run: "
                "watchfiles 'arq predictor.worker.Settings' FOLDER"
            )
        settings = worker_settings(Config())
    _use_uvloop()
    return settings
