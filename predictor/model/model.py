"""A model: a callable from a text to anything that JSON can represent, run within a time limit."""

import asyncio
import contextlib
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from predictor.errors import ModelFailed, PredictionError, TimedOut
from predictor.model.encoding import encode_json, is_small
from predictor.model.run import Run
from predictor.prediction import Json, new_id
from predictor.process import call_in_thread

_GRACE = 0.1  # seconds that a call which timed out gets to clean up before it is abandoned


class Model:
    """A loaded model. An `async def` is awaited; anything else runs in a thread of its own."""

    def __init__(self, function: Callable[..., Any], max_result: int = sys.maxsize) -> None:
        """Raises TypeError if `function` cannot be called with one text."""
        self._function = function
        self._max_result = max_result
        self.takes_run = _takes_run(function)
        call = getattr(function, "__call__", function)  # noqa: B004 (the method is inspected)
        #: whether a call ends when it is canceled; a thread does not
        self.can_be_stopped = any(map(inspect.iscoroutinefunction, (function, call)))
        self._abandoned: set[asyncio.Future[Json]] = set()

    @property
    def abandoned(self) -> int:
        """The number of calls that still run after a timeout or a cancel; each takes a slot."""
        return len(self._abandoned)

    async def run(self, text: str, seconds: float, run: Run | None = None) -> Json:
        """The model's result for `text`, as JSON, within so many seconds.

        `run`: for a model that takes one; by default, one whose output goes nowhere.
        Raises InvalidInput, TimedOut, and ModelFailed for everything else that the model raises.
        Canceling this cancels an `async def`, and abandons a thread.
        """
        run = run or Run(new_id(), time.time() + seconds, max_result=self._max_result)
        call = asyncio.ensure_future(self._call((text, run) if self.takes_run else (text,), run))
        try:
            await asyncio.wait({call}, timeout=seconds)
            if not call.done():
                call.cancel()
                await asyncio.wait({call}, timeout=_GRACE)
                raise TimedOut(f"The prediction ran out of time ({round(seconds, 3):g} s).")
            if call.cancelled():
                raise ModelFailed  # the model canceled itself
            return call.result()
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            run.canceled = True
            self._abandon(call)

    async def _call(self, arguments: tuple[Any, ...], run: Run) -> Json:
        function, owner, loop = self._function, os.getpid(), asyncio.get_running_loop()
        if self.can_be_stopped:
            try:
                with _failures():
                    value = await function(*arguments)
                    if is_small(value):
                        return encode_json(value, self._max_result)
            finally:
                if os.getpid() != owner:
                    os._exit(1)  # forked by the model: no second worker
            function, arguments = (lambda: value), ()

        def work() -> Json:
            with _failures():
                value = function(*arguments)
                if inspect.isawaitable(value):  # such as a decorated `async def`
                    coroutine = asyncio.wait_for(value, None)
                    value = asyncio.run_coroutine_threadsafe(coroutine, loop).result()
                return encode_json(value, self._max_result, lambda: run.canceled)

        thread = call_in_thread(work)
        try:
            return await asyncio.shield(thread)
        finally:
            self._abandon(thread)

    def _abandon(self, call: asyncio.Future[Json]) -> None:
        if not call.done():
            self._abandoned.add(call)
            call.add_done_callback(self._abandoned.discard)
            # asyncio logs exceptions that were never retrieved.
            call.add_done_callback(lambda call: call.cancelled() or call.exception())


def _takes_run(function: Callable[..., Any]) -> bool:
    """Whether the second parameter is for the run: it is required, or is named `run`."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-ins have none
        return False
    takes_run = False
    for second in [*signature.parameters.values()][1:2]:
        is_positional = second.kind in {second.POSITIONAL_ONLY, second.POSITIONAL_OR_KEYWORD}
        takes_run = is_positional and (second.default is second.empty or second.name == "run")
    signature.bind("", *[None] * takes_run)
    return takes_run


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Convert what a model raises to ModelFailed; SystemExit, too: it must not end the process."""
    try:
        yield
    except (PredictionError, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise ModelFailed from error
