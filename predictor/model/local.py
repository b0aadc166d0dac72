"""Runs a model in this process: an `async def` on the loop, anything else in a thread."""

import asyncio
import contextlib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from predictor.errors import BY_CODE, Canceled, ModelFailed, PredictionError
from predictor.logs import end_printed_lines
from predictor.model.encoding import is_small, too_large
from predictor.model.run import Abandoned, Outcome, Run
from predictor.model.signature import Signature, callee
from predictor.model.values import Gives
from predictor.prediction import Json
from predictor.process import IdleThreads, call_in_thread

_Write = Callable[[Any, Run], Any]


class Local:
    def __init__(self, target: Any, signature: Signature, abandoned: Abandoned) -> None:
        self._target, self._signature, self._abandoned = target, signature, abandoned
        self._function = callee(target)
        self._idle: IdleThreads = []

    async def start(self) -> None:
        if inspect.isclass(self._target):
            self._target = await call_in_thread(self._target, self._idle)
            self._function = callee(self._target)
        if warm_up := getattr(self._target, "warm_up", None):
            loop = asyncio.get_running_loop()
            await call_in_thread(lambda: _settled(warm_up(), loop), self._idle)

    async def call(self, value: Json, run: Run) -> Json:
        """The result for an input. Raises PredictionError."""
        signature = self._signature
        is_iterator = signature.streams and not signature.is_async
        write = self._complete if is_iterator else signature.gives.write
        written: Json = await self._answer(signature.takes.read(value), run, write)
        return written

    async def call_batch(self, values: list[Json], run: Run) -> list[Outcome]:
        """The outcome for each of the inputs, of one call. Raises what the whole call raises."""
        signature = self._signature
        read = [signature.takes.read(value) for value in values]
        lists = {name: [each[name] for each in read] for name in read[0]}
        write = functools.partial(_write_each, len(values), signature.gives)
        outcomes: list[Outcome] = await self._answer(lists, run, write)
        return outcomes

    async def _answer(self, values: dict[str, Any], run: Run, write: _Write) -> Any:
        """What `write` makes of the result of a call."""
        signature, loop = self._signature, asyncio.get_running_loop()
        if signature.run:
            values[signature.run] = run
        first = [values.pop(name) for name in signature.positional if name in values]
        call = functools.partial(self._function, *first, **values)
        if not signature.is_async:
            return await self._in_thread(lambda: write(_settled(call(), loop), run))
        with _Failures():
            called = call()
            if hasattr(called, "__aiter__"):
                return await self._follow(called, run)
            result = await called
            is_list = signature.batching and isinstance(result, list)
            if all(map(is_small, result)) if is_list else is_small(result):
                return write(result, run)
        return await self._in_thread(lambda: write(result, run))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        thread = call_in_thread(_Failures()(work), self._idle)
        try:
            return await asyncio.shield(thread)
        finally:
            if not thread.done():
                self._abandoned.add(thread)

    def _complete(self, called: Any, run: Run) -> Json:
        """In a thread: the result of an iterator."""
        gives, iterator = self._signature.gives, iter(called)
        pieces = _Pieces(run, gives)
        try:
            while not run.canceled:
                pieces.add(next(iterator))
        except StopIteration as end:  # a generator may return the result
            return pieces.joined() if end.value is None else gives.write(end.value, run)
        finally:
            if close := getattr(iterator, "close", None):
                close()
        raise Canceled

    async def _follow(self, called: Any, run: Run) -> Json:
        """The result of an async generator."""
        pieces = _Pieces(run, self._signature.gives)
        try:
            async for piece in called:
                pieces.add(piece)
                await asyncio.sleep(0)  # a model may await nothing
        finally:
            if close := getattr(called, "aclose", None):
                await close()
        return pieces.joined()


class _Pieces:
    """The pieces of one result: sent as they come; text and bytes are joined, others listed."""

    def __init__(self, run: Run, gives: Gives) -> None:
        self._run, self._gives = run, gives
        self._written, self._size = list[Json](), 0
        self._kinds: set[type] = set()
        self._bytes: list[bytes] = []

    def add(self, piece: Any) -> None:
        self._kinds.add(type(piece))
        self._written.append(self._run.output(piece))
        self._size += len(self._written[-1])
        if self._size > self._run.max_result:
            raise too_large(self._run.max_result)
        if isinstance(piece, bytes):
            self._bytes.append(piece)

    def joined(self) -> Json:
        if self._are(bytes):
            return self._gives.write(b"".join(self._bytes), self._run)
        if self._are(str):
            joined = b'"%b"' % b"".join(piece[1:-1] for piece in self._written)
        else:
            joined = b"[%b]" % b",".join(self._written)
        return self._gives.check(Json(joined))

    def _are(self, kind: type) -> bool:
        """Whether all are of this kind, and not declared as another."""
        declared = self._gives.type
        return declared in (kind, Any) and all(
            issubclass(each, kind) for each in self._kinds or {declared}
        )


def _write_each(count: int, gives: Gives, results: Any, run: Run) -> list[Outcome]:
    """The outcome for each input of a batch: its result as JSON, or why there is none."""
    is_list = hasattr(results, "__len__") and not isinstance(results, str | bytes | dict)
    if not is_list or len(results) != count:
        found = f"{len(results)} results" if is_list else f"a {type(results).__name__}"
        reason = f"The model returned {found} for a batch of {count} inputs, not {count} results."
        return [ModelFailed(reason) for _ in range(count)]
    written = list[Outcome]()
    for result in results:
        try:
            with _Failures():
                if isinstance(result, BaseException):
                    raise result
                written.append(gives.write(result, run))
        except PredictionError as error:
            written.append(error)
    return written


def _settled(value: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """In a thread: `value`, awaited if it must be, such as that of a decorated `async def`."""
    if inspect.isawaitable(value):
        coroutine = asyncio.wait_for(value, None)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    return value


class _Failures(contextlib.ContextDecorator):
    """Converts what a model raises to ModelFailed; SystemExit, too: it must not end the process.

    A process that the model forked ends here: it must not become a second worker. A generator would
    be shorter, and 1.4 percent of the instructions of a sync request.
    """

    def __enter__(self) -> None:
        self._owner = os.getpid()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if os.getpid() != self._owner:
            os._exit(1)
        end_printed_lines()
        if error is None or isinstance(error, asyncio.CancelledError):
            return
        outcome: PredictionError = ModelFailed()
        cause: BaseException | None = error
        if isinstance(error, PredictionError):  # of a class of its own, perhaps
            with contextlib.suppress(BaseException):
                outcome, cause = BY_CODE[error.code](str(error)), error.__cause__
        raise outcome from cause
