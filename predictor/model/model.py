"""A function, an instance or a class: what it takes and gives, and its runs within a time limit."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from predictor.errors import ModelFailed, TimedOut
from predictor.model.batching import Batches
from predictor.model.local import Local
from predictor.model.processes import Processes
from predictor.model.run import Abandoned, Run
from predictor.model.signature import read_signature
from predictor.prediction import Json, new_id

_GRACE = 0.1  # seconds that a call which timed out gets to clean up before it is abandoned


class Model:
    def __init__(
        self, target: Any, max_result: int = sys.maxsize, processes: Processes | None = None
    ) -> None:
        """`processes`: where it runs, if not in this one. Raises ConfigError."""
        self.signature = read_signature(target, max_result)
        self._processes, self._max_result, self._abandoned = processes, max_result, Abandoned()
        self._way = processes or Local(target, self.signature, self._abandoned)
        self.call_batch = self._way.call_batch
        self._call: Callable[[Json, Run], Awaitable[Json]] = self._way.call
        if batching := self.signature.batching:
            self._call = Batches(self.call_batch, batching, self._abandoned).call
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
        await self._way.start()
        self.is_ready = True

    async def close(self) -> None:
        if self._processes:
            await self._processes.close()

    def check(self, value: Json) -> None:
        """Raise InvalidInput if this is no input of the model."""
        self.signature.takes.read(value)

    async def run(self, value: Json, seconds: float, run: Run | None = None) -> Json:
        """The result for an input, within so many seconds.

        `run`: by default, one whose events go nowhere. Raises InvalidInput, TimedOut, and
        ModelFailed for everything else that the model raises. Canceling this cancels the call.
        """
        run = run or Run(new_id(), time.time() + seconds, max_result=self._max_result)
        call = asyncio.ensure_future(self._call(value, run))
        try:
            in_time, _ = await asyncio.wait({call}, timeout=seconds)
        finally:
            run.canceled = True
            if not call.done():
                call.cancel()
                self._abandoned.add(call)
        if not in_time:
            await asyncio.wait({call}, timeout=_GRACE)
            raise TimedOut(f"The prediction ran out of time ({round(seconds, 3):g} s).")
        if call.cancelled():
            raise ModelFailed  # the model canceled itself
        return call.result()
