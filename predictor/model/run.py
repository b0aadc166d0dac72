"""The run that a prediction's model may talk to, if it has a second parameter."""

import math
import sys
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from predictor.model.encoding import encode_json
from predictor.prediction import EventKind, Json, PredictionId

#: Characters of a message that goes with a progress.
_MESSAGE = 1000


class Run:
    """One run of one prediction. All of it may be used from any thread.

    What is said is for those who follow the prediction; nobody can follow a sync one.
    """

    def __init__(
        self,
        id_: PredictionId,
        deadline: float,
        say: Callable[[EventKind, Json], None] = lambda *_: None,
        max_result: int = sys.maxsize,
    ) -> None:
        self._id = id_
        self._deadline = deadline
        self._say = say
        self._max_result = max_result
        self._is_canceled = False

    @property
    def id(self) -> str:
        """The prediction's id, the same in every try."""
        return self._id

    @property
    def deadline(self) -> float:
        """When this run will be ended, seconds since 1970."""
        return self._deadline

    @property
    def canceled(self) -> bool:
        """Whether nobody waits for the outcome any more: canceled, or out of time.

        An `async def` is ended then; a `def`, whose thread nobody can end, may look and return.
        """
        return self._is_canceled

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far this run is, from 0 to 1. Ten a second reach those who follow, and the last.

        Raises ValueError if `fraction` is no number.
        """
        if math.isnan(fraction):
            raise ValueError("progress must be a number from 0 to 1, not NaN")
        share = min(max(float(fraction), 0.0), 1.0)
        data = to_json({"fraction": share, "message": str(message)[:_MESSAGE]})
        self._say(EventKind.PROGRESS, Json(data))

    def output(self, piece: Any) -> None:
        """Hand out a part of the output, any JSON value, before all of it is there.

        Raises ModelFailed if it cannot be written as JSON, or has more bytes than a result may.
        """
        self._say(EventKind.OUTPUT, encode_json(piece, self._max_result))

    def revoke(self) -> None:
        """For who runs it: nobody waits for the outcome any more."""
        self._is_canceled = True
