"""The second parameter of a model: reports progress and partial output of one run."""

import asyncio
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from predictor.errors import PredictionError
from predictor.model.encoding import encode_json
from predictor.prediction import EventKind, Json

Outcome = Json | PredictionError

_MESSAGE = 1000  # longest message of a progress, in characters


@dataclass(eq=False)
class Run:
    """One run of one prediction. Thread-safe. Only async predictions have events."""

    id: str  # the prediction's; the same in every try
    deadline: float  # when this run times out, in seconds since 1970
    #: For Predictor itself: sends an event whose data is JSON.
    emit: Callable[[EventKind, Json], None] = field(default=lambda *_: None, repr=False)
    max_result: int = field(default=sys.maxsize, repr=False)
    #: Whether the result is no longer wanted: canceled, or timed out. An `async def` is
    #: canceled then. A `def` cannot be: it should check this, and return.
    canceled: bool = field(default=False, init=False)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, from 0 to 1. At most ten a second are sent, and always the last.

        Raises ValueError if `fraction` is NaN.
        """
        if math.isnan(fraction):
            raise ValueError("progress must be a number from 0 to 1, not NaN")
        share = min(max(float(fraction), 0.0), 1.0)
        data = to_json({"fraction": share, "message": str(message)[:_MESSAGE]})
        self.emit(EventKind.PROGRESS, Json(data))

    def output(self, piece: Any) -> Json:
        """Send a part of the output, any JSON value, before the result is complete.

        Returns it as JSON. Raises ModelFailed if it is none, or larger than PREDICTOR_MAX_RESULT.
        """
        written = encode_json(piece, self.max_result)
        self.emit(EventKind.OUTPUT, written)
        return written


class Abandoned(set[asyncio.Future[Any]]):
    """Calls that still run though they were canceled."""

    def add(self, call: asyncio.Future[Any]) -> None:
        """Count a call until it ends."""
        super().add(call)
        call.add_done_callback(self.discard)
        # asyncio logs exceptions that were never retrieved.
        call.add_done_callback(lambda call: call.cancelled() or call.exception())
