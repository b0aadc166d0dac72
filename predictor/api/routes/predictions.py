"""The routes of one prediction, whatever its model."""

from fastapi import APIRouter, Request, Response

from predictor.api.dependencies import KnownPrediction, PathId, Store, app_state, known
from predictor.api.headers import NO_STORE, RETRY_AFTER, SERVER_TIMING
from predictor.api.openapi import UNKNOWN, described, raises
from predictor.api.responses import progress
from predictor.api.schemas import PredictionCancellation, PredictionStatus
from predictor.errors import AlreadyEnded, StillActive, UnknownPrediction
from predictor.prediction import Prediction
from predictor.store.predictions import Cancellation

router = APIRouter(prefix="/predict/{prediction_id}", tags=["predictions"], responses=UNKNOWN)

_CANNOT_BE_STOPPED = (
    "The model runs in a thread, which cannot be stopped: its slot stays taken until it ends, and "
    "its result is dropped."
)


@router.get(
    "/status",
    response_model=PredictionStatus,
    responses={
        200: described(
            "Known, whatever became of it. `Retry-After` while it has not ended, then "
            "`Server-Timing`.",
            *(NO_STORE, RETRY_AFTER, SERVER_TIMING),
        )
    },
)
async def read_status(prediction: KnownPrediction, response: Response) -> Prediction:
    """How far a prediction is: 200 for every known one, whatever became of it."""
    response.headers.update(progress(prediction))
    return prediction


@router.delete(
    "",
    status_code=204,
    response_description="Its input, its result and its events are gone.",
    responses=raises(StillActive),
)
async def erase_prediction(id_: PathId, store: Store) -> None:
    """Remove the input, the result and the events of a prediction that has ended."""
    if not await store.erase(id_):
        raise UnknownPrediction


@router.post(
    "/cancel",
    response_model_exclude_none=True,
    response_description="It will not be run, or was canceled before.",
    responses={
        202: described(
            "It runs; its worker has been told. The `note` says so where the model cannot be "
            "stopped.",
            model=PredictionCancellation,
        ),
        **raises(AlreadyEnded),
    },
)
async def cancel_prediction(
    request: Request, id_: PathId, store: Store, response: Response
) -> PredictionCancellation:
    """End a prediction that waits or runs; then `GET /predict/{prediction_id}` responds 410."""
    outcome = known(await store.cancel(id_))
    is_told = outcome is Cancellation.TOLD
    response.status_code = 202 if is_told else 200
    is_stuck = is_told and not app_state(request)["model"].can_be_stopped
    note = _CANNOT_BE_STOPPED if is_stuck else None
    return PredictionCancellation(prediction_id=id_, status=outcome, note=note)
