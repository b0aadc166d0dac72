"""What the application holds while it serves."""

from typing import TypedDict, cast

from fastapi import Request

from predictor.api.limits import Bodies, Limits
from predictor.config import Config
from predictor.model.model import Model
from predictor.store.changes import Changes
from predictor.store.metrics import Metrics
from predictor.store.predictions import Predictions
from predictor.traces import Traces


class AppState(TypedDict):
    config: Config
    model: Model
    bodies: Bodies
    limits: Limits
    predictions: Predictions
    changes: Changes
    metrics: Metrics
    has_several_names: bool
    owner: str  # what the ids of the sender of this request begin with; empty without keys
    traces: Traces | None


def app_state(request: Request) -> AppState:
    return cast("AppState", request.scope["state"])
