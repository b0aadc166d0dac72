"""Dependencies of routes."""

from typing import Annotated, TypedDict, cast

from fastapi import Depends, Path, Request

from predictor.api.concurrency import Slots
from predictor.api.schemas import Bodies
from predictor.config import Config
from predictor.errors import UnknownPrediction
from predictor.model.model import Model
from predictor.prediction import Prediction, PredictionId, parse_id
from predictor.store.changes import Changes
from predictor.store.predictions import Predictions
from predictor.webhooks.allowlist import Allowed


class AppState(TypedDict):
    """What the application holds while it serves."""

    config: Config
    model: Model
    bodies: Bodies
    slots: Slots
    predictions: Predictions
    changes: Changes
    allowed: Allowed


def app_state(request: Request) -> AppState:
    return cast("AppState", request.scope["state"])


PathText = Annotated[str, Path(description="As the 202 that accepted it says.")]


async def path_id(prediction_id: PathText) -> PredictionId:
    """Raises UnknownPrediction where it cannot be an id: the store need not be asked."""
    if (id_ := parse_id(prediction_id)) is None:
        raise UnknownPrediction
    return id_


PathId = Annotated[PredictionId, Depends(path_id)]


async def known_prediction(request: Request, id_: PathId) -> Prediction:
    """The prediction as it is now, without its output."""
    return await app_state(request)["predictions"].look(id_)


KnownPrediction = Annotated[Prediction, Depends(known_prediction)]


async def _predictions(request: Request) -> Predictions:
    return app_state(request)["predictions"]


Store = Annotated[Predictions, Depends(_predictions)]
