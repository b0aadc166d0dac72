"""What the application holds, and parameters of its routes."""

from functools import partial
from typing import Annotated, TypedDict, TypeVar, cast

from fastapi import Header, Path, Request
from pydantic import AfterValidator

from predictor.api.concurrency import Slots
from predictor.config import Config
from predictor.errors import NoWebhook
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


T = TypeVar("T")
Given = Annotated[T, Header()]

_PATH = Path(description="The `prediction_id` of the 202 that accepted it.")
#: What cannot be an id is refused without asking the store.
PathId = Annotated[PredictionId, _PATH, AfterValidator(parse_id)]
WebhookId = Annotated[PredictionId, _PATH, AfterValidator(partial(parse_id, error=NoWebhook))]
