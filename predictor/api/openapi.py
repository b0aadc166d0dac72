"""OpenAPI's description of responses, from the classes that make them."""

from http import HTTPStatus
from typing import Any

from predictor.api.headers import NO_STORE, RETRY_AFTER, ResponseHeader
from predictor.api.responses import status_of
from predictor.api.schemas import Error
from predictor.errors import PredictionError, PredictorError, StoreUnavailable, UnknownPrediction

Responses = dict[int | str, dict[str, Any]]

_ALWAYS = {404: [NO_STORE], 503: [RETRY_AFTER]}


def described(description: str, *headers: ResponseHeader, **more: Any) -> dict[str, Any]:
    """A response; `headers`: those that it may have."""
    documented = {
        header.name: {
            "description": header.description,
            "schema": {"type": "string", "pattern": header.pattern},
        }
        for header in headers
    }
    return {"description": description, "headers": documented, **more}


def raises(*kinds: type[PredictorError], headers: tuple[ResponseHeader, ...] = ()) -> Responses:
    """The responses of these errors: status from the table, example from the docstring.

    `headers`: those of a prediction that ended without a result.
    """
    responses: Responses = {}
    for status in sorted(set(map(status_of, kinds))):
        here = [kind for kind in kinds if status_of(kind) == status]
        examples = {kind.__name__: {"value": {"error": kind().message}} for kind in here}
        responses[status] = described(
            f"{HTTPStatus(status).phrase}.",
            *_ALWAYS.get(status, ()),
            *(headers if any(issubclass(kind, PredictionError) for kind in here) else ()),
            model=Error,
            content={"application/json": {"examples": examples}},
        )
    return responses


#: The errors of every route with a prediction's id.
UNKNOWN = raises(UnknownPrediction, StoreUnavailable)
