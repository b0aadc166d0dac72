"""Where the parts of the api meet."""

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

from predictor import __version__
from predictor.api import errors, routes
from predictor.api.dependencies import State
from predictor.api.drain import on_stop
from predictor.api.request_id import RequestId
from predictor.api.slots import Slots
from predictor.config import Config
from predictor.model.loading import load_model
from predictor.store.news import News
from predictor.store.predictions import Policy, Predictions
from predictor.webhooks.allowlist import Allowed

_DESCRIPTION = """\
A model behind HTTP. `POST /predict` answers with the result; with the header `Async-Mode: true` it
is accepted at once, run by a worker, and read with `GET /predict/{prediction_id}`.

The rule for clients: **200** done, **202** ask again, anything else will not succeed.

Instead of asking again: wait for the answer (`Prefer: wait=30`), follow the events, or be told by a
webhook. Every request can be repeated safely with an `Idempotency-Key`, and every answer has the
`X-Request-ID` of its request, or one of its own.
"""


def create_app(config: Config) -> FastAPI:
    """The api as `config` says, its model loaded. Raises ConfigError."""
    model = load_model(config.model, config.max_result)
    url = config.store_url
    store = Predictions(url, _policy(config))
    allowed = Allowed.parse(config.webhook_allow)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        with suppress(ValueError, OSError):  # each connection is a file
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        async with store as predictions, News(url) as news:
            slots = Slots(config.concurrency, lambda: model.abandoned)
            with on_stop(news.end):
                yield State(
                    config=config,
                    model=model,
                    slots=slots,
                    predictions=predictions,
                    news=news,
                    allowed=allowed,
                )

    app = FastAPIOffline(
        title="Predictor",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[Middleware(RequestId)],
        generate_unique_id_function=_operation_id,
    )
    app.include_router(routes.router)
    errors.install(app)
    return app


def _policy(config: Config) -> Policy:
    return Policy(
        queue_ttl=config.queue_ttl,
        result_ttl=config.result_ttl,
        queue_limit=config.queue_limit,
        wait_replicas=config.wait_replicas,
    )


def _operation_id(route: APIRoute) -> str:
    return route.name
