"""All errors, as one tree: a class's docstring is its default message."""

import math
from typing import ClassVar


class PredictorError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500  # of the HTTP response
    code: ClassVar[str] = ""  # how the store names a failed prediction: once released, it stays

    def __init_subclass__(cls, status: int = 0, code: str = "") -> None:
        cls.status, cls.code = status or cls.status, code or cls.code

    def __init__(self, message: str | None = None, *, retry_after: float = math.inf) -> None:
        """`retry_after`: seconds until another try may succeed; infinite, if none would."""
        super().__init__(message or type(self).__doc__)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """The message for clients: truncated, and without what UTF-8 cannot encode."""
        return super().__str__()[:10_000].encode(errors="replace").decode()


class ConfigError(PredictorError):
    """A setting cannot be used."""


class StoreUnavailable(PredictorError, status=503):
    """The store cannot be reached; try again."""


class UnsuitableStore(StoreUnavailable):
    """The store would lose predictions."""


class Overloaded(PredictorError, status=503):
    """Too much to do; try again later."""

    def __init__(
        self, message: str | None = None, *, retry_after: float = 1, reason: str = "slots_taken"
    ) -> None:
        """`reason`: as metrics name it."""
        super().__init__(message, retry_after=retry_after)
        self.reason = reason


class Unreachable(PredictorError, status=503):
    """The API cannot be reached. Raised by clients."""


class RequestError(PredictorError, status=400):
    """The request cannot be served as it was sent."""


class InvalidHeader(RequestError):
    """A header has a value that it must not have."""


class InvalidQuery(RequestError):
    """Query parameter id must be given 1 to 300 times, each with 1 to 64 of A-Z a-z 0-9 _ -."""


class InvalidJson(RequestError):
    """The body is not valid JSON."""


class InvalidBody(RequestError, status=422):
    """The body does not have the fields that it must have."""


class UnsupportedMediaType(RequestError, status=415):
    """Send the body as JSON, with the header Content-Type: application/json."""


class BodyTooLarge(RequestError, status=413):
    """The body is larger than PREDICTOR_MAX_BODY."""


class BodyTimeout(RequestError, status=408):
    """The body did not arrive in time; send it again."""


class KeyReused(RequestError, status=422):
    """Header Idempotency-Key was used with another request before; use a new key."""


class WebhookRefused(RequestError):
    """Webhook-Url cannot be called, or must not be."""


class Unauthorized(RequestError, status=401):
    """Send a key of this API, with the header Authorization: Bearer."""


class Forbidden(RequestError, status=403):
    """This key must not be used for that."""


class TooManyRequests(Overloaded, RequestError, status=429):
    """More predictions are requested than PREDICTOR_RATE or PREDICTOR_OPEN allows; try later."""


class ClientDisconnected(PredictorError, status=499):
    """The client left before the response."""


class UnknownPrediction(PredictorError, status=404):
    """Prediction ID not found."""


class NoWebhook(PredictorError, status=404):
    """There is no webhook for this prediction ID."""


class AlreadyEnded(PredictorError, status=409):
    """Prediction has already ended."""


class StillActive(PredictorError, status=409):
    """Prediction has not ended yet; cancel it first."""


class PredictionError(PredictorError, code="failed"):
    """The prediction failed."""


class InvalidInput(PredictionError, status=422, code="invalid_input"):
    """The model refused this input."""


class ModelFailed(PredictionError, code="model_failed"):
    """The model failed on this input."""


class TimedOut(PredictionError, status=504, code="timed_out"):
    """The prediction ran out of time."""


class Canceled(PredictionError, status=410, code="canceled"):
    """Prediction was canceled."""


class Expired(PredictionError, status=504, code="expired"):
    """The prediction waited too long in the queue and was not run."""


class GivenUp(PredictionError, code="given_up"):
    """The prediction was given up: its worker died each time it ran."""


class Unreadable(PredictionError, code="unreadable"):
    """What is stored for this prediction cannot be read."""


#: Every way in which a prediction can fail, by its code.
BY_CODE = {PredictionError.code: PredictionError}
BY_CODE |= {kind.code: kind for kind in PredictionError.__subclasses__()}
