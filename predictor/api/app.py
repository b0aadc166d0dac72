"""The application, put together from its parts."""

import asyncio
import gc
import importlib
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request, Security
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.staticfiles import StaticFiles

from predictor import __version__
from predictor.api import routes
from predictor.api.access import Cors, Gate, Keys
from predictor.api.headers import RequestId
from predictor.api.limits import Bodies, Limits
from predictor.api.responses import EXCEPTION_HANDLERS
from predictor.api.schemas import Error
from predictor.api.state import AppState
from predictor.config import Config, entries
from predictor.model.loading import configured_model, start_model
from predictor.model.model import Model
from predictor.process import ends_if_misconfigured, on_stop, warn_if_exposed
from predictor.store.changes import Changes
from predictor.store.metrics import Metrics
from predictor.store.predictions import Predictions
from predictor.traces import start_tracing

_DESCRIPTION = """\
A model behind HTTP. `POST /predict` responds with the result; with the header `Async-Mode: true`
the prediction is accepted at once, run by a worker, and read with `GET /predict/{prediction_id}`.

The rule for clients: **200** done, **202** ask again, anything else will not succeed.

Instead of asking again: wait for the result (`Prefer: wait=30`), follow the events, or get a
webhook. Every request can be repeated safely with an `Idempotency-Key`, and every response has the
`X-Request-ID` of its request, or one of its own.
"""

#: The page at `/`: files that know nothing of this service; what they show, they ask it for.
_PAGE = Path(__file__).parent / "static"
_TELEMETRY = TelemetryConfig(
    metrics=False,
    logs=False,
    operation_spans=False,
    auto_configure=False,
    exclude=lambda scope: scope["path"].startswith(("/health", "/metrics")),
)


async def _start(path: str, model: Model) -> None:
    try:
        with ends_if_misconfigured():
            await start_model(path, model)
    except SystemExit as end:
        os._exit(int(end.code or 0))  # not through the server, which would log it as its own error


@asynccontextmanager
async def _lifespan(state: AppState, _: FastAPI) -> AsyncIterator[AppState]:
    gc.freeze()  # what is loaded stays: a collection amid a large body would look through it
    with suppress(ValueError, OSError):  # each connection is a file
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    config, model, loop = state["config"], state["model"], asyncio.get_running_loop()
    async with state["predictions"], state["changes"] as changes, state["metrics"]:
        start = asyncio.create_task(_start(config.model, model)) if config.sync == "api" else None
        if not config.api_keys:  # when the server listens, which it does once this has begun
            loop.call_later(1, warn_if_exposed)
        await asyncio.sleep(0)  # what needs no time is ready before the first request
        # The server waits for open requests; those that wait for a prediction would delay it.
        on_stop(partial(loop.call_soon_threadsafe, changes.close))
        yield state
        if start:
            start.cancel()
            await model.close()
    if traces := state["traces"]:
        await traces.close()


async def _page(_: Request) -> FileResponse:
    return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})


def _state(config: Config, keys: Keys) -> AppState:
    model, store = configured_model(config), Predictions(config)
    return AppState(
        config=config,
        model=model,
        bodies=Bodies(config.max_body),
        limits=Limits(config, model, store),
        predictions=store,
        changes=Changes(config.store_url),
        metrics=Metrics(store.run),
        has_several_names=keys.has_several_names,
        owner="",
        traces=start_tracing(),
    )


def create_app(config: Config) -> FastAPI:
    """The api as `config` says, its model loaded. Raises ConfigError."""
    keys = Keys(config.api_keys)
    state = _state(config, keys)
    signature = state["model"].signature
    scheme = HTTPBearer(auto_error=False, description="A key of PREDICTOR_API_KEYS.")
    secured = [Security(scheme)] if config.api_keys else []  # documents what Gate does
    if config.signing_secrets:
        importlib.import_module("predictor.webhooks.target")  # now, not amid a request
    app = FastAPIOffline(
        title="Predictor",
        summary=config.model,
        version=__version__,
        description=f"{signature.description}\n\n---\n\n{_DESCRIPTION}".lstrip(),
        swagger_ui_parameters={"tryItOutEnabled": True},
        openapi_tags=[{"name": name} for name in ("predictions", "health", "webhooks")],
        redoc_url=None,
        redirect_slashes=False,
        telemetry={**_TELEMETRY, "tracing": state["traces"] is not None},
        lifespan=partial(_lifespan, state),
        exception_handlers=EXCEPTION_HANDLERS,
        generate_unique_id_function=lambda route: route.name,
        responses={"default": {"description": "Any other error.", "model": Error}},
    )
    routes.add_predict(app, signature, secured)
    app.router.routes.reverse()  # before those of the documentation: the first that matches serves
    app.include_router(routes.predictions, dependencies=secured)
    app.include_router(routes.watched, dependencies=secured)
    app.include_router(routes.health)
    app.include_router(routes.operations, dependencies=secured)
    app.add_route("/", _page, methods=["GET"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    inner = app.build_middleware_stack()
    if config.api_keys or config.allowed_hosts:
        inner = Gate(inner, config, keys)
    if config.cors_origins:
        inner = Cors(inner, entries(config.cors_origins))
    app.middleware_stack = RequestId(inner)  # around the handler of bugs, too
    return app
