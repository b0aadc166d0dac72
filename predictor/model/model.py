"""A function, an instance or a class: what it takes and gives, and its runs within a time limit."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from itertools import islice
from typing import Any

from predictor.errors import ModelFailed, TimedOut
from predictor.logs import about, joined
from predictor.model.local import Local
from predictor.model.processes import Processes
from predictor.model.run import Abandoned, Run
from predictor.model.signature import Batching, read_signature
from predictor.prediction import Json, new_id

logger = logging.getLogger(__name__)

_GRACE = 0.1  # seconds that a call which nobody waits for gets to clean up before it is abandoned
#: Result, input, a run of its own, and what its lines in the log are about.
_Item = tuple[asyncio.Future[Json], Json, Run, Mapping[str, str]]


class Model:
    def __init__(
        self, target: Any, max_result: int = sys.maxsize, processes: Processes | None = None
    ) -> None:
        """`processes`: where it runs, if not in this one. Raises ConfigError."""
        self.signature = read_signature(target)
        self._processes, self._max_result, self._abandoned = processes, max_result, Abandoned()
        self.way = processes or Local(target, self.signature, self._abandoned)
        self._call: Callable[[Json, Run], Awaitable[Json]] = self.way.call
        if batching := self.signature.batching:
            self._call = _Batches(self.way, batching, self._abandoned).call
        self.is_ready = False  # loaded and warm

    @property
    def cancel_note(self) -> str:
        """How a run ends that is canceled; empty: at once."""
        if self._processes or self.signature.is_async or self.signature.batching:
            return ""
        if self.signature.streams:
            return "The model ends at its next piece."
        return (
            "The model runs in a thread, which cannot be stopped: its slot stays taken until "
            "it ends, and its result is dropped."
        )

    @property
    def abandoned(self) -> int:
        """The slots of calls that still run after a timeout or a cancel: of a batch, a full one."""
        batching = self.signature.batching
        return len(self._abandoned) * (batching.max_size if batching else 1)

    def slots(self, concurrency: int) -> int:
        """How many predictions may run at once: of batches, those of one run and of the next."""
        if self._processes:
            concurrency = self._processes.alive
        batching = self.signature.batching
        return max(concurrency, 2 * batching.max_size) if batching and concurrency else concurrency

    async def start(self) -> None:
        """Load it, and warm it up. Raises what it does."""
        await self.way.start()
        self.is_ready = True

    async def close(self) -> None:
        if self._processes:
            await self._processes.close()

    async def run(self, value: Json, seconds: float, run: Run | None = None) -> Json:
        """The result for an input, within so many seconds.

        `run`: by default, one whose events go nowhere. Raises InvalidInput, TimedOut, and
        ModelFailed for everything else that the model raises. Canceling this cancels the call.
        """
        run = run or Run(new_id(), time.time() + seconds, max_result=self._max_result)
        call, loop = asyncio.ensure_future(self._call(value, run)), asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()  # asyncio.wait takes twice as long

        def end(_: object) -> None:
            if not ended.done():
                ended.set_result(None)

        call.add_done_callback(end)
        timer = loop.call_later(seconds, end, None)
        try:
            await ended
        finally:
            timer.cancel()
            run.canceled, in_time = True, call.done()
            if not in_time:
                call.cancel()
                self._abandoned.add(call)
        if not in_time:
            await asyncio.wait({call}, timeout=_GRACE)
            raise TimedOut(f"The prediction ran out of time ({round(seconds, 3):g} s).")
        if call.cancelled():
            raise ModelFailed  # the model canceled itself
        return call.result()


class _Batches:
    """Predictions that wait at the same time are one call of the model, with a list.

    A batch goes when the model is free, and as many wait as came last time, or it is full, or
    `max_wait` has passed. A call that raises is run again in halves, until one input is left.
    """

    def __init__(self, way: Local | Processes, terms: Batching, abandoned: Abandoned) -> None:
        self._way, self._terms, self._abandoned = way, terms, abandoned
        self._waiting: dict[asyncio.Future[Json], _Item] = {}
        self._came = asyncio.Event()
        self._usual = 1  # size of the last batch
        self._serving: asyncio.Task[None] | None = None

    def call(self, value: Json, run: Run) -> asyncio.Future[Json]:
        result: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[result] = result, value, run, about.get()
        result.add_done_callback(lambda result: self._waiting.pop(result, None))
        self._came.set()
        if not self._serving or self._serving.done():
            # In no context: it goes on for others than whose prediction is first.
            self._serving = asyncio.create_task(self._serve(), context=Context())
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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._terms.max_wait):
                while len(self._waiting) < self._usual:
                    self._came.clear()
                    await self._came.wait()

    async def _run_part(self, part: list[_Item]) -> bool:
        """Run them in one call. False if they are to be run again, in halves."""
        results, values, runs, ids = zip(*part, strict=True)
        about.set(joined(ids))
        deadline, most = max(run.deadline for run in runs), runs[0].max_result
        run = Run(new_id(), deadline, max_result=most)
        call = asyncio.ensure_future(self._way.call_batch(list(values), run))
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
