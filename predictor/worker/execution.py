"""Runs one prediction, from its claim to its finish."""

import asyncio
import functools
import math
import time
from collections.abc import Iterable
from typing import Any

from arq.worker import RetryJob

from predictor.config import Config
from predictor.errors import Canceled, Expired, GivenUp, PredictionError, TimedOut
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
        self._running: dict[PredictionId, asyncio.Task[Any]] = {}
        self._canceled: set[PredictionId] = set()
        #: how many predictions were returned to the queue
        self.requeued = 0

    @functools.cached_property
    def model(self) -> Model:
        """The model, loaded when it is first used. Raises ModelNotLoadable."""
        return load_model(self._config.model, self._config.max_result)

    async def predict(self, ctx: dict[Any, Any]) -> None:
        """arq's job. Raises the prediction's error after it was stored, so that arq logs it."""
        claim = self._claims.held[PredictionId(ctx["job_id"])]
        outcome: Output | PredictionError
        try:
            outcome = await self._outcome(claim)
        except PredictionError as error:
            outcome = error
        except asyncio.CancelledError:
            await asyncio.shield(self.requeue(claim.id))
            raise RetryJob from None
        await asyncio.shield(self._claims.finish(claim, outcome))
        if isinstance(outcome, PredictionError):
            raise outcome

    async def _outcome(self, claim: Claim) -> Output:
        """The output. Raises PredictionError, and CancelledError if it is to be requeued."""
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
            if claim.id in self._canceled:
                raise Canceled from None
            raise
        finally:
            del self._running[claim.id]
            self._canceled.discard(claim.id)

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

    def cancel(self, ids: Iterable[PredictionId]) -> None:
        """End runs whose result is no longer wanted."""
        for id_ in ids:
            if task := self._running.get(id_):
                self._canceled.add(id_)
                task.cancel()

    def interrupt(self) -> None:
        """End all runs; each prediction that does not finish is requeued."""
        for task in self._running.values():
            task.cancel()

    async def requeue(self, *ids: PredictionId) -> None:
        """Return predictions to the queue; these tries do not count."""
        self.requeued += len(ids)
        await self._claims.requeue(*ids)
