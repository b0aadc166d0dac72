"""Keeps a worker's leases from running out, whatever its interpreter is doing."""

import asyncio
import contextlib
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Callable
from pathlib import Path

from predictor.config import Config
from predictor.prediction import PredictionId
from predictor.store import keys
from predictor.store.claims import Claims
from predictor.store.connection import blocking_client
from predictor.store.retry import STORE_ERRORS, describe
from predictor.store.scripts import Scripts

logger = logging.getLogger(__name__)

#: Starts the heartbeat, though the current folder may have changed since this was imported from it.
_PROGRAM = (
    "import runpy, sys; sys.path.append({!r}); "
    "runpy.run_module('predictor.store.heartbeat', run_name='__main__')"
)
_FOLDER = str(Path(__file__).parents[2])
_PAUSE = 0.2  # seconds until a heartbeat that ended is started again


class Renewal:
    """A worker's heartbeat process, which ends when the worker does. Restarts it if it ends."""

    def __init__(
        self, config: Config, claims: Claims, on_over: Callable[[PredictionId], None]
    ) -> None:
        """`on_over` is called with each id that need not go on."""
        self._about = ""
        self._config, self._claims, self._on_over = config, claims, on_over
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self, slots: int) -> None:
        """Return when leases are renewed, and this worker counts as alive."""
        about = {"worker": self._claims.worker, "slots": slots}
        about |= {name: getattr(self._config, name) for name in ("model", "model_version")}
        self._about = json.dumps(about)
        self._keeping = asyncio.create_task(self._keep(await self._spawn()))

    async def stop(self) -> None:
        if self._keeping and self._process:
            self._keeping.cancel()
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                self._process.kill()
            await self._process.wait()
            retry = self._claims.retry  # at worst, it counts as alive until its lease ends
            await retry.until_end(lambda: retry.redis.zrem(keys.WORKERS, self._about))

    def requeue_now(self, also_delete: str) -> None:
        """From a thread: return all that is held to the queue, and remove a key."""
        claims, url = self._claims, self._config.store_url
        client = blocking_client(url, socket_timeout=0.5, socket_connect_timeout=0.5)
        try:
            client.delete(also_delete, keys.CANCEL_REQUESTS + claims.worker)
            if held := list(claims.held.values()):
                scripts = Scripts(client)
                scripts.run("requeue", *claims.requeue_arguments(held))
            client.zrem(keys.WORKERS, self._about)
        except STORE_ERRORS as error:
            logger.warning("not requeued (%s): the leases will run out", describe(error))

    async def _spawn(self) -> asyncio.StreamReader:
        config, claims = self._config, self._claims
        fields = {"url": config.store_url, "worker": claims.worker, "lease": config.lease}
        fields |= {"timeout": config.timeout, "about": self._about}
        fields |= {"log": (config.log_format, config.log_level)}
        command = (sys.executable, "-P", "-c", _PROGRAM.format(_FOLDER))
        self._process = process = await create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        assert process.stdin and process.stdout  # noqa: PT018, S101 (for the type checker)
        process.stdin.write(json.dumps(fields).encode() + b"\n")
        while line := (await process.stdout.readline()).strip():  # until it is ready
            self._on_over(PredictionId(line.decode()))
        return process.stdout

    async def _keep(self, output: asyncio.StreamReader) -> None:
        while True:
            async for line in output:
                self._on_over(PredictionId(line.decode().strip()))
            logger.warning("the heartbeat process ended; it is started again")
            await asyncio.sleep(_PAUSE)
            output = await self._spawn()
