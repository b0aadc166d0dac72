"""Batches: predictions that wait at the same time are one call of the model, with a list."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

from predictor.errors import ModelFailed
from predictor.model.run import Abandoned, Outcome, Run
from predictor.model.signature import Batching
from predictor.prediction import Json, new_id

logger = logging.getLogger(__name__)

_GRACE = 0.1  # seconds that a call which nobody waits for gets to clean up before it is abandoned

CallBatch = Callable[[list[Json], Run], Awaitable[list[Outcome]]]
_Item = tuple[asyncio.Future[Json], Json, float]  # result, input, and when its run times out


class Batches:
    """A batch goes when the model is free, and as many wait as came last time, or it is full, or
    `max_wait` has passed. A call that raises is run again in halves, until one input is left.
    """

    def __init__(self, call: CallBatch, terms: Batching, abandoned: Abandoned) -> None:
        self._call_batch, self._terms, self._abandoned = call, terms, abandoned
        self._waiting: dict[asyncio.Future[Json], _Item] = {}
        self._came = asyncio.Event()
        self._usual = 1  # size of the last batch
        self._serving: asyncio.Task[None] | None = None

    def call(self, value: Json, run: Run) -> asyncio.Future[Json]:
        result: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[result] = result, value, run.deadline
        result.add_done_callback(lambda result: self._waiting.pop(result, None))
        self._came.set()
        if not self._serving or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return result

    async def _serve(self) -> None:
        while self._waiting:
            await self._gather()
            first = list(islice(self._waiting, self._terms.max_size))
            parts = [[self._waiting.pop(result) for result in first]]
            self._usual = len(first)
            while parts:
                part = [item for item in parts.pop() if not item[0].done()]
                if part and not await self._run_part(part):
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]

    async def _gather(self) -> None:
        await asyncio.sleep(0)  # for what comes in the same turn of the loop
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._terms.max_wait):
                while len(self._waiting) < self._usual:
                    self._came.clear()
                    await self._came.wait()

    async def _run_part(self, part: list[_Item]) -> bool:
        """Run them in one call. False if they are to be run again, in halves."""
        results, values, deadlines = zip(*part, strict=True)
        run = Run(new_id(), max(deadlines))
        call = asyncio.ensure_future(self._call_batch(list(values), run))
        all_left: asyncio.Future[Any] = asyncio.ensure_future(asyncio.wait(results))
        await asyncio.wait([call, all_left], return_when=asyncio.FIRST_COMPLETED)
        all_left.cancel()
        run.canceled = True
        if not call.done():
            call.cancel()
            self._abandoned.add(call)
            await asyncio.wait({call}, timeout=_GRACE)
            return True
        error = ModelFailed() if call.cancelled() else call.exception()
        if error and len(part) > 1:
            reason = error.__cause__ or error
            logger.warning("a batch of %d failed and is run again in halves: %r", len(part), reason)
            return False
        for result, outcome in zip(results, [error] if error else call.result(), strict=True):
            if not result.done() and isinstance(outcome, BaseException):
                result.set_exception(outcome)
            elif not result.done():
                result.set_result(outcome)
        return True
