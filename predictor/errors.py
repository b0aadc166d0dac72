"""What can go wrong. Imports nothing of the package.

PredictorError
├── ConfigError             a setting cannot be used: the process does not start
│   └── ModelNotLoadable    PREDICTOR_MODEL does not name a model that can be loaded
├── StoreUnavailable        the store did not confirm: nothing is known to be accepted
│   └── UnsuitableStore     it is of a kind that would lose predictions
├── Overloaded              not now: all slots are taken, or the queue is full
├── RequestError            the request cannot be served as it was sent
│   └── InvalidHeader, UnsupportedMediaType, BodyTooLarge, BodyTimeout, InvalidJson, InvalidBody,
│       KeyReused, WebhookRefused
├── UnknownPrediction, NoWebhook, AlreadyEnded, StillActive, ClientDisconnected
└── PredictionError         a prediction ended without a result; stored as `code` and message
    ├── InvalidInput        the model refused its input
    ├── ModelFailed         the model raised, or answered what cannot be written as JSON
    ├── TimedOut            it ran longer than it may
    ├── Canceled            somebody asked for it to end
    ├── Expired             it waited longer in the queue than it may
    ├── GivenUp             it ended its worker too often
    └── Unreadable          what the store holds for it is not what was written

A class's docstring is its default message.
"""

from typing import ClassVar, Final

#: Exit status of a process that cannot start as it is configured (EX_CONFIG of sysexits.h).
CANNOT_START: Final = 78


class PredictorError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)

    def __str__(self) -> str:
        """Whatever a model says: not too long, and without what UTF-8 cannot write."""
        return super().__str__()[:10_000].encode(errors="replace").decode()

    @property
    def message(self) -> str:
        """The sentence that a client may read."""
        return str(self)


class ConfigError(PredictorError):
    """A setting cannot be used."""


class ModelNotLoadable(ConfigError):
    """The model cannot be loaded."""


class StoreUnavailable(PredictorError):
    """The store cannot be reached; try again."""


class UnsuitableStore(StoreUnavailable):
    """The store would lose predictions."""


class Overloaded(PredictorError):
    """Too much to do; try again later."""

    def __init__(self, message: str | None = None, *, retry_after: float = 1) -> None:
        """`retry_after`: seconds until another try may succeed."""
        super().__init__(message)
        self.retry_after = retry_after


class RequestError(PredictorError):
    """The request cannot be served as it was sent."""


class InvalidHeader(RequestError):
    """A header has a value that it must not have."""


class InvalidJson(RequestError):
    """The body is not valid JSON."""


class InvalidBody(RequestError):
    """The body does not have the fields that it must have."""


class UnsupportedMediaType(RequestError):
    """Send the body as JSON, with the header Content-Type: application/json."""


class BodyTooLarge(RequestError):
    """The body is larger than PREDICTOR_MAX_BODY."""


class BodyTimeout(RequestError):
    """The body did not arrive in time; send it again."""


class KeyReused(RequestError):
    """Header Idempotency-Key was used with another request before; use a new key."""


class WebhookRefused(RequestError):
    """Webhook-Url cannot be called, or must not be."""


class ClientDisconnected(PredictorError):
    """The client left before the response."""


class UnknownPrediction(PredictorError):
    """Prediction ID not found."""


class NoWebhook(PredictorError):
    """There is no webhook for this prediction ID."""


class AlreadyEnded(PredictorError):
    """Prediction has already ended."""


class StillActive(PredictorError):
    """Prediction has not ended yet; cancel it first."""


class PredictionError(PredictorError):
    """The prediction failed."""

    #: How the store names it; never changes once released.
    code: ClassVar[str] = "failed"


class InvalidInput(PredictionError):
    """The model refused this input."""

    code = "invalid_input"


class ModelFailed(PredictionError):
    """The model failed on this input."""

    code = "model_failed"


class TimedOut(PredictionError):
    """The prediction ran out of time."""

    code = "timed_out"


class Canceled(PredictionError):
    """Prediction was canceled."""

    code = "canceled"


class Expired(PredictionError):
    """The prediction waited too long in the queue and was not run."""

    code = "expired"


class GivenUp(PredictionError):
    """The prediction was given up: its worker died each time it ran."""

    code = "given_up"


class Unreadable(PredictionError):
    """What is stored for this prediction cannot be read."""

    code = "unreadable"
