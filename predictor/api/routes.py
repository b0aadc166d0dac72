"""One short function for each endpoint."""

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from predictor.api.dependencies import prediction_id, read_input, state, wants_async
from predictor.api.errors import error_response, status_of, unknown_id
from predictor.api.schemas import (
    CANCEL_ANSWERS,
    ID_IN_PATH,
    LIVE_ANSWERS,
    PREDICT_ANSWERS,
    PREDICT_REQUEST,
    READ_ANSWERS,
    READY_ANSWERS,
)
from predictor.prediction import Output, PredictionId, new_id
from predictor.store.predictions import Cancellation

router = APIRouter()

_CANNOT_BE_STOPPED = (
    "The model runs in a thread, which cannot be stopped: its slot stays taken until it ends, and "
    "its result is dropped."
)

_PENDING = {"Retry-After": "1", "Cache-Control": "no-store"}


@router.post(
    "/predict", tags=["predictions"], responses=PREDICT_ANSWERS, openapi_extra=PREDICT_REQUEST
)
async def predict(request: Request) -> Response:
    """Run the model on an input: at once, or later with the header `Async-Mode: true`."""
    is_async = wants_async(request)
    text = await read_input(request)
    if is_async:
        return await _accept(request, text)
    parts = state(request)
    async with parts["slots"].take():
        result = await parts["model"].run(text, parts["config"].timeout)
    return _json(Output(text, result).to_json())


async def _accept(request: Request, text: str) -> Response:
    id_ = new_id()
    await state(request)["predictions"].submit(id_, text)
    body = to_json(
        {"message": "Request received. Processing asynchronously.", "prediction_id": id_}
    )
    location = f"{request.scope.get('root_path', '')}/predict/{id_}"
    return _json(body, 202, {"Location": location, "Retry-After": "1"})


@router.get(
    "/predict/{prediction_id}",
    tags=["predictions"],
    responses=READ_ANSWERS,
    openapi_extra=ID_IN_PATH,
)
async def read_prediction(request: Request) -> Response:
    """Read an accepted prediction: 200 done, 202 ask again, anything else will not succeed."""
    id_ = prediction_id(request)
    prediction = await state(request)["predictions"].read(id_) if id_ else None
    if id_ is None or prediction is None:
        return unknown_id()
    if prediction.output:
        return _json(_done(id_, prediction.output))
    if error := prediction.error:
        return error_response(status_of(error), error.message, prediction_id=id_)
    return error_response(202, "Prediction is still being processed.", _PENDING)


@router.post(
    "/predict/{prediction_id}/cancel",
    tags=["predictions"],
    responses=CANCEL_ANSWERS,
    openapi_extra=ID_IN_PATH,
)
async def cancel_prediction(request: Request) -> Response:
    """End a prediction that waits or runs; then `GET /predict/{prediction_id}` answers 410."""
    id_ = prediction_id(request)
    outcome = await state(request)["predictions"].cancel(id_) if id_ else None
    if id_ is None or outcome is None:
        return unknown_id()
    body = {"prediction_id": id_, "status": outcome}
    if outcome is Cancellation.GONE:
        return _json(to_json(body))
    if not state(request)["model"].can_be_stopped:
        body["note"] = _CANNOT_BE_STOPPED
    return _json(to_json(body), 202)


@router.get("/health/live", tags=["health"], responses=LIVE_ANSWERS)
async def live() -> Response:
    """Whether this process serves, whatever the store does: restart it if not."""
    return _json(b'{"status":"live"}')


@router.get("/health/ready", tags=["health"], responses=READY_ANSWERS)
async def ready(request: Request) -> Response:
    """Whether both kinds of prediction can be asked for: the model is loaded, the store answers."""
    await state(request)["predictions"].check()
    return _json(b'{"status":"ready"}')


def _done(id_: PredictionId, output: Output) -> bytes:
    return b'{"prediction_id":%b,"output":%b}' % (to_json(id_), output.to_json())


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")
