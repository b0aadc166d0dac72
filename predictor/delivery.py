"""The noun: what a webhook is told, and how often that was tried. Pure: no clock, no I/O."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from predictor.prediction import Prediction


class DeliveryState(StrEnum):
    """How far the delivery of a webhook has come."""

    #: its prediction has not ended
    WAITING = "waiting"
    #: it is tried, again and again
    PENDING = "pending"
    #: the receiver has it
    DELIVERED = "delivered"
    #: given up: a day has passed, or the receiver wants no more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What happened. `at` and `seconds`: when it began, since 1970, and how long it took."""

    at: float
    seconds: float
    outcome: Literal["delivered", "gone", "failed"]
    status: int | None = None
    error: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of a prediction's end, and what came of it."""

    url: str
    state: DeliveryState
    attempts: list[Attempt]
    #: when it is tried next, seconds since 1970
    next_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be told now."""

    url: str
    prediction: Prediction
    #: how often it was tried since it was last asked for
    recent_tries: int
    #: when it was last asked for: by the end of the prediction, or to be sent again
    since: float
