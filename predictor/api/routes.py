"""One short function for each endpoint."""

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from predictor.api.dependencies import read_input, state, wants_async
from predictor.api.errors import error_response, status_of, unknown_id
from predictor.api.schemas import (
    LIVE_ANSWERS,
    PREDICT_ANSWERS,
    PREDICT_REQUEST,
    READ_ANSWERS,
    READY_ANSWERS,
)
from predictor.prediction import Output, PredictionId, new_id, parse_id

router = APIRouter()

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
    config, model = state(request)["config"], state(request)["model"]
    result = await model.run(text, config.timeout)
    return _json(Output(text, result).to_json())


async def _accept(request: Request, text: str) -> Response:
    prediction_id = new_id()
    await state(request)["predictions"].submit(prediction_id, text)
    body = to_json(
        {
            "message": "Request received. Processing asynchronously.",
            "prediction_id": prediction_id,
        }
    )
    location = f"{request.scope.get('root_path', '')}/predict/{prediction_id}"
    return _json(body, 202, {"Location": location, "Retry-After": "1"})


@router.get("/predict/{prediction_id}", tags=["predictions"], responses=READ_ANSWERS)
async def read_prediction(request: Request, prediction_id: str) -> Response:
    """Read an accepted prediction: 200 done, 202 ask again, anything else will not succeed."""
    known_id = parse_id(prediction_id)
    prediction = await state(request)["predictions"].read(known_id) if known_id else None
    if known_id is None or prediction is None:
        return unknown_id()
    if prediction.output:
        return _json(_done(known_id, prediction.output))
    if prediction.error:
        return error_response(
            status_of(prediction.error), prediction.error.message, prediction_id=known_id
        )
    return error_response(202, "Prediction is still being processed.", _PENDING)


@router.get("/health/live", tags=["health"], responses=LIVE_ANSWERS)
async def live() -> Response:
    """Whether this process serves, whatever the store does: restart it if not."""
    return _json(b'{"status":"live"}')


@router.get("/health/ready", tags=["health"], responses=READY_ANSWERS)
async def ready(request: Request) -> Response:
    """Whether both kinds of prediction can be asked for: the model is loaded, the store answers."""
    await state(request)["predictions"].check()
    return _json(b'{"status":"ready"}')


def _done(prediction_id: PredictionId, output: Output) -> bytes:
    return b'{"prediction_id":%b,"output":%b}' % (to_json(prediction_id), output.to_json())


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")
