"""Runs one prediction, from its claim to its finish."""

import asyncio
import functools
import math
import time
from typing import Any

from arq.worker import RetryJob

from predictor import errors
from predictor.config import Config
from predictor.model.loading import load_model
from predictor.model.model import Model
from predictor.model.run import Run
from predictor.prediction import Json, Output, PredictionId
from predictor.store.claims import Claim, Claims
from predictor.store.wire import decode_job
from predictor.worker.emitter import Emitter


class Executor:
    """Runs the predictions that this worker has claimed."""

    def __init__(self, config: Config, claims: Claims) -> None:
        self._config = config
        self._claims = claims
        #: runs that no client has canceled
        self._running: dict[PredictionId, asyncio.Task[Any] | None] = {}

    @functools.cached_property
    def model(self) -> Model:
        """The model, loaded when it is first used. Raises ConfigError."""
        return load_model(self._config.model, self._config.max_result)

    async def predict(self, ctx: dict[Any, Any]) -> None:
        """arq's job. Raises the prediction's error after it was stored, so that arq logs it."""
        claim = self._claims.held[PredictionId(ctx["job_id"])]
        outcome: Output | errors.PredictionError
        try:
            outcome = await self._outcome(claim)
        except errors.PredictionError as error:
            outcome = error
        except asyncio.CancelledError:
            await asyncio.shield(self._claims.requeue(claim.id))
            raise RetryJob from None
        await asyncio.shield(self._claims.finish(claim, outcome))
        if isinstance(outcome, errors.PredictionError):
            raise outcome

    async def _outcome(self, claim: Claim) -> Output:
        """The output. Raises errors.PredictionError, and CancelledError if it is to be requeued."""
        if claim.verdict == "expired" and claim.tries:
            raise errors.TimedOut
        if claim.verdict:
            raise errors.BY_CODE[claim.verdict]
        job = decode_job(claim.job)
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

    async def _run(self, id_: PredictionId, text: str, seconds: float) -> Json:
        if not self.model.takes_run:
            return await self.model.run(text, seconds)
        emitter = Emitter(functools.partial(self._claims.emit, id_))
        run = Run(id_, time.time() + seconds, emitter.emit, self._config.max_result)
        try:
            return await self.model.run(text, seconds, run)
        finally:
            # A task of its own: a cancel of the prediction must not reach a wait for the store.
            await asyncio.shield(asyncio.create_task(emitter.close()))

    def cancel(self, id_: PredictionId) -> None:
        """End a run whose result is no longer wanted."""
        if task := self._running.pop(id_, None):
            task.cancel()

    def interrupt(self) -> None:
        """End all runs; each prediction that does not finish is requeued."""
        for task in filter(None, self._running.values()):
            task.cancel()
