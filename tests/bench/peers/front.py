"""The front of every queue: FastAPI, with models for bodies and answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response

from tests.bench.peers.work import Accepted, Done, Input, Pending


def front(
    submit: Callable[[str], Awaitable[str]],
    result: Callable[[str], Awaitable[Any]],
    opened: Callable[[], AbstractAsyncContextManager[Any]],
) -> FastAPI:
    """`submit` returns an id for an input; `result` its result, or None while there is none."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with opened():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict", status_code=202)
    async def predict(body: Input) -> Accepted:
        return Accepted(prediction_id=await submit(body.input))

    @app.get("/predict/{prediction_id}", response_model=Done | Pending)
    async def read(prediction_id: str, response: Response) -> Done | Pending:
        if (output := await result(prediction_id)) is not None:
            return Done(prediction_id=prediction_id, output=output)
        response.status_code = 202
        return Pending()

    return app
