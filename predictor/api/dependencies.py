"""Dependencies of routes."""

from typing import Annotated, TypedDict, TypeVar, cast

from fastapi import Depends, Header, Path, Request

from predictor.api.concurrency import Slots
from predictor.config import Config
from predictor.errors import NoWebhook, UnknownPrediction
from predictor.model.model import Model
from predictor.prediction import PredictionId, parse_id
from predictor.store.changes import Changes
from predictor.store.predictions import Predictions
from predictor.webhooks.allowlist import Allowed


class AppState(TypedDict):
    """What the application holds while it serves."""

    config: Config
    model: Model
    slots: Slots
    predictions: Predictions
    changes: Changes
    allowed: Allowed


def app_state(request: Request) -> AppState:
    return cast("AppState", request.scope["state"])


async def _predictions(request: Request) -> Predictions:
    return app_state(request)["predictions"]


PathText = Annotated[str, Path(description="The `prediction_id` of the 202 that accepted it.")]


async def path_id(prediction_id: PathText) -> PredictionId:
    """Raises UnknownPrediction for what cannot be an id, without asking the store."""
    if id_ := parse_id(prediction_id):
        return id_
    raise UnknownPrediction


async def _webhook_id(prediction_id: PathText) -> PredictionId:
    if id_ := parse_id(prediction_id):
        return id_
    raise NoWebhook


T = TypeVar("T")
Given = Annotated[T, Header()]
Store = Annotated[Predictions, Depends(_predictions)]
PathId = Annotated[PredictionId, Depends(path_id)]
WebhookId = Annotated[PredictionId, Depends(_webhook_id)]
