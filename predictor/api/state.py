"""What the application holds while it serves."""

from typing import TypedDict, cast

from fastapi import Request

from predictor.api.concurrency import Slots
from predictor.config import Config
from predictor.model.model import Model
from predictor.store.changes import Changes
from predictor.store.predictions import Predictions
from predictor.webhooks.allowlist import Allowed


class AppState(TypedDict):
    config: Config
    model: Model
    slots: Slots
    predictions: Predictions
    changes: Changes
    allowed: Allowed


def app_state(request: Request) -> AppState:
    return cast("AppState", request.scope["state"])
