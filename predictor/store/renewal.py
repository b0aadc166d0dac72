"""Keeps a worker's leases from running out, whatever its interpreter is doing."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterable

from predictor.prediction import PredictionId
from predictor.store import keys
from predictor.store.claims import Claims
from predictor.store.connection import blocking_client
from predictor.store.heartbeat import Beat
from predictor.store.retry import STORE_ERRORS, describe
from predictor.store.scripts import script

logger = logging.getLogger(__name__)

#: Seconds until a heartbeat that ended is started again.
_PAUSE = 0.2


class Renewal:
    """The heartbeat of this worker: started, kept, listened to.

    It renews all that the store says the worker holds, and ends when the worker does.
    """

    def __init__(
        self, url: str, claims: Claims, on_over: Callable[[Iterable[PredictionId]], None]
    ) -> None:
        """`on_over` is called with ids that need not go on."""
        self._url = url
        self._claims = claims
        self._on_over = on_over
        self._allow_oom = False
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self, *, allow_oom: bool) -> None:
        """Begin to renew, and return when that has begun; `allow_oom` as in `script`."""
        self._allow_oom = allow_oom
        await self._spawn()
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Renew no more."""
        if self._keeping and self._process:
            self._keeping.cancel()
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                self._process.kill()
            await self._process.wait()

    def requeue_now(self, also_delete: str) -> None:
        """From a thread, now: return all that is held to the queue, and remove a key."""
        client = blocking_client(self._url, socket_timeout=0.5, socket_connect_timeout=0.5)
        try:
            client.delete(also_delete, keys.CANCEL_REQUESTS + self._claims.terms.worker)
            if held := list(self._claims.held.values()):
                requeue = client.register_script(script("requeue", allow_oom=self._allow_oom))
                requeue(args=self._claims.requeue_arguments(held))
        except STORE_ERRORS as error:
            logger.warning("not requeued (%s): the leases will run out", describe(error))

    async def _spawn(self) -> None:
        terms = self._claims.terms
        beat = Beat(self._url, terms.worker, terms.lease, terms.longest_run_ms, self._allow_oom)
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "predictor.store.heartbeat"), stdin=PIPE, stdout=PIPE
        )
        assert process.stdin is not None  # noqa: S101 (for the type checker)
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        process.stdin.write(json.dumps(dataclasses.asdict(beat)).encode() + b"\n")
        await process.stdout.readline()

    async def _keep(self) -> None:
        while True:
            assert self._process is not None  # noqa: S101 (for the type checker)
            assert self._process.stdout is not None  # noqa: S101 (for the type checker)
            async for line in self._process.stdout:
                self._on_over([PredictionId(line.decode().strip())])
            status = await self._process.wait()
            logger.warning("the heartbeat ended (exit status %s): started again", status)
            await asyncio.sleep(_PAUSE)
            await self._spawn()
