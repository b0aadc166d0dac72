"""A client for code that blocks: AsyncClient, on an event loop in a thread of its own."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from predictor.client.asynchronous import AsyncClient, AsyncPrediction

P = ParamSpec("P")
T = TypeVar("T")
_Method = Callable[Concatenate[Any, P], T]
_END: Any = object()


class _Loop:
    """The thread, into which others call."""

    def __init__(self, client: AsyncClient) -> None:
        started = threading.Event()

        async def serve() -> None:
            self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
            started.set()
            async with client:
                await self._stopped.wait()

        # A daemon: a program that does not close its client ends, too.
        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        started.wait()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise RuntimeError("The client is closed.") from None
        try:
            return future.result()
        except BaseException:  # Ctrl-C: nobody waits for it any more
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """The items. Where this is dropped, so are they, and the loop closes their generator."""

        async def take() -> T:
            return await anext(items, _END)

        while (item := self.call(take())) is not _END:
            yield item

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()


def _like(method: _Method[P, Any]) -> Callable[[Callable[..., T]], _Method[P, T]]:
    """Declare the parameters and the documentation of another method."""
    return functools.wraps(method)


def _blocking(method: _Method[P, Coroutine[Any, Any, T]]) -> _Method[P, T]:
    return _like(method)(lambda self, *a, **kw: self._loop.call(method(self._async, *a, **kw)))


def _iterating(method: _Method[P, AsyncGenerator[T, None]]) -> _Method[P, Iterator[T]]:
    return _like(method)(lambda self, *a, **kw: self._loop.iterate(method(self._async, *a, **kw)))


class Client(contextlib.AbstractContextManager["Client"]):
    """AsyncClient, blocking. Threads may share it; a forked process needs one of its own.

    Its end, or `close`, ends what other threads wait for with CancelledError.
    """

    @_like(AsyncClient.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        self._async = AsyncClient(*args, **options)
        self._loop = _Loop(self._async)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._loop.close()

    predict = _blocking(AsyncClient.predict)
    stream = _iterating(AsyncClient.stream)

    @_like(AsyncClient.submit)
    def submit(self, *args: Any, **options: Any) -> "Prediction":
        return Prediction(self._loop.call(self._async.submit(*args, **options)), self._loop)

    def prediction(self, id: str) -> "Prediction":
        """The prediction with this id, which is not checked here."""
        return Prediction(self._async.prediction(id), self._loop)


class Prediction:
    """AsyncPrediction, blocking."""

    def __init__(self, prediction: AsyncPrediction, loop: _Loop) -> None:
        self.id = prediction.id
        self._async, self._loop = prediction, loop

    wait = _blocking(AsyncPrediction.wait)
    output = _blocking(AsyncPrediction.output)
    status = _blocking(AsyncPrediction.status)
    cancel = _blocking(AsyncPrediction.cancel)
    events = _iterating(AsyncPrediction.events)
    stream = _iterating(AsyncPrediction.stream)
