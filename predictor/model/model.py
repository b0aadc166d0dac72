"""What a model is: a callable from text to anything JSON can say. Loading it, running it.

Knows nothing of ids, queues, Redis or HTTP.
"""

import asyncio
import contextlib
import contextvars
import functools
import importlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from predictor.errors import ModelFailed, ModelNotLoadable, PredictionError, TimedOut
from predictor.model.encoding import encode_json, is_small
from predictor.model.run import Run
from predictor.prediction import Json, new_id

#: Where the mock model is, by the shorter path that is the default.
_MOVED = {"predictor.mock": "predictor.model.mock"}

#: Seconds that a call which ran out of time gets to clean up before it is left to itself.
_GRACE = 0.1


def load_model(path: str, max_result: int = sys.maxsize) -> "Model":
    """The model that `path` ("package.module:name", dots allowed in the name) points to.

    `max_result`: bytes that a result, or a piece of output, may have.
    Raises ModelNotLoadable with one line that says what was looked for and where.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ModelNotLoadable(f"PREDICTOR_MODEL: {path!r} must look like package.module:name")
    module_name = _MOVED.get(module_name, module_name)
    target = _import(module_name, path)
    for part in name.split("."):
        if not hasattr(target, part):
            where = getattr(sys.modules[module_name], "__file__", None) or "a namespace package"
            raise ModelNotLoadable(
                f"PREDICTOR_MODEL: {path!r}: module {module_name!r} ({where}) has no {name!r}"
            )
        target = getattr(target, part)
    return Model(_check_call(target, path), max_result)


def _import(module_name: str, path: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            places = ", ".join(dict.fromkeys(str(Path(entry).resolve()) for entry in sys.path))
            raise ModelNotLoadable(
                f"PREDICTOR_MODEL: {path!r}: no module {error.name!r} in {places}"
            ) from None
        raise _import_failed(module_name, path, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(module_name, path, error) from error


def _import_failed(module_name: str, path: str, error: BaseException) -> ModelNotLoadable:
    # The innermost frame outside the import machinery is the line that the author has to mend.
    where, trace = "", error.__traceback__
    while trace:
        filename = trace.tb_frame.f_code.co_filename
        if not filename.startswith("<frozen importlib") and filename != __file__:
            where = f" ({filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return ModelNotLoadable(
        f"PREDICTOR_MODEL: {path!r}: importing {module_name!r} raised "
        f"{type(error).__name__}: {error}{where}"
    )


def _check_call(target: Any, path: str) -> Callable[..., Any]:
    if not callable(target) or inspect.isclass(target):
        kind = f"the class {target.__name__}" if inspect.isclass(target) else type(target).__name__
        raise ModelNotLoadable(
            f"PREDICTOR_MODEL: {path!r} is {kind}; name a function or a callable object"
        )
    try:
        inspect.signature(target).bind("", *([None] if _takes_run(target) else []))
    except TypeError as error:
        raise ModelNotLoadable(
            f"PREDICTOR_MODEL: {path!r} cannot be called with one text: {error}"
        ) from None
    except ValueError:
        pass  # some built-in callables have no signature to look at
    return target  # type: ignore[no-any-return]


def _takes_run(target: Callable[..., Any]) -> bool:
    """Whether its second parameter is for the run: it must be given, or is called `run`."""
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except ValueError:
        return False
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if len(parameters) < 2 or parameters[1].kind not in kinds:
        return False
    return parameters[1].default is inspect.Parameter.empty or parameters[1].name == "run"


class Model:
    """A loaded model. An `async def` is awaited; anything else runs in a thread of its own."""

    def __init__(self, function: Callable[..., Any], max_result: int = sys.maxsize) -> None:
        self._function = function
        self._max_result = max_result
        #: whether it has a second parameter, for the run
        self.takes_run = _takes_run(function)
        call = getattr(function, "__call__", function)  # noqa: B004 (the method, to look at it)
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
        self._abandoned: set[asyncio.Future[Json]] = set()

    @property
    def can_be_stopped(self) -> bool:
        """Whether a call ends when it is canceled; a thread does not."""
        return self._is_async

    @property
    def abandoned(self) -> int:
        """How many calls still run though nobody waits for them any more: each fills a slot."""
        return len(self._abandoned)

    async def run(
        self,
        text: str,
        timeout: float,  # noqa: ASYNC109 (part of the contract)
        run: Run | None = None,
    ) -> Json:
        """What the model makes of `text`, as JSON, within `timeout` seconds.

        `run`: for a model that takes one; without it, what it says is heard by nobody.

        Raises InvalidInput where the model says so, TimedOut, and ModelFailed for whatever else
        goes wrong in it. When this call is canceled so is an `async def`; a thread cannot be.
        """
        run = run or Run(new_id(), time.time() + timeout, max_result=self._max_result)
        call = asyncio.ensure_future(self._call((text, run) if self.takes_run else (text,), run))
        try:
            await asyncio.wait({call}, timeout=timeout)
            if not call.done():
                call.cancel()
                await asyncio.wait({call}, timeout=_GRACE)
                raise TimedOut(f"The prediction ran out of time ({round(timeout, 3):g} s).")
            if call.cancelled():
                raise ModelFailed  # the model canceled itself: nobody else did
            return call.result()
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            run.revoke()
            self._abandon(call)

    async def _call(self, arguments: tuple[Any, ...], run: Run) -> Json:
        function, owner = self._function, os.getpid()
        if self._is_async:
            try:
                value = await function(*arguments)
                if is_small(value):
                    return encode_json(value, self._max_result)
            except (PredictionError, asyncio.CancelledError):
                raise
            except BaseException as error:
                # SystemExit, too: a model must not be able to end the process that runs it.
                raise ModelFailed from error
            finally:
                if os.getpid() != owner:
                    os._exit(1)  # forked by the model: no second worker
            function, arguments = (lambda: value), ()

        def encode(value: Any) -> Json:
            return encode_json(value, self._max_result, lambda: run.canceled)

        thread = _call_in_thread(function, arguments, encode)
        try:
            await asyncio.wait({thread})
            return thread.result()
        finally:
            self._abandon(thread)

    def _abandon(self, call: asyncio.Future[Json]) -> None:
        if not call.done():
            self._abandoned.add(call)
            call.add_done_callback(self._abandoned.discard)
            # Somebody has to look at its exception, or asyncio complains that nobody did.
            call.add_done_callback(lambda call: call.cancelled() or call.exception())


def _call_in_thread(
    function: Callable[..., Any], arguments: tuple[Any, ...], encode: Callable[[Any], Json]
) -> asyncio.Future[Json]:
    """Call `function` in a thread; the future is done when the thread is.

    A daemon thread, and none of a pool: one that never ends must keep neither the process from
    ending nor the next prediction from starting.
    """
    loop = asyncio.get_running_loop()
    call: asyncio.Future[Json] = loop.create_future()

    def work() -> None:
        try:
            value = function(*arguments)
            if inspect.isawaitable(value):  # a decorated `async def`, say
                value = asyncio.run_coroutine_threadsafe(_await(value), loop).result()
            settle = functools.partial(call.set_result, encode(value))
        except PredictionError as error:
            settle = functools.partial(call.set_exception, error)
        except BaseException as error:
            failed = ModelFailed()
            failed.__cause__ = error
            settle = functools.partial(call.set_exception, failed)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    return call


async def _await(value: Awaitable[Any]) -> Any:
    return await value
