"""schemathesis's checks, except where /openapi.json cannot say what is refused.

Loaded by `schemathesis` itself (SCHEMATHESIS_HOOKS); see test_schemathesis.py.
"""

import re
from typing import Any

import schemathesis
from schemathesis.checks import CheckContext
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi import checks

#: The checks that are replaced by those below.
REPLACED = (checks.positive_data_acceptance, checks.ensure_resource_availability)

#: Errors of requests that the schema allows, and why it cannot do better.
_EXPLAINED = (
    # A key and the body that it was used with before: what is refused depends on the past.
    r"Header Idempotency-Key was used with another request before; use a new key\.",
    # Headers that need another one: OpenAPI describes each by itself.
    r"Header Webhook-Url needs a prediction that is queued: add Async-Mode: true\.",
    # A sum of parts has no pattern.
    r"Header Cancel-After must be a time like 30s, 1m30s or 500ms, at most 720h\.",
    # Where a name leads is not in its syntax.
    r"Webhook-Url .*",
    # Only some predictions have a webhook.
    r"There is no webhook for this prediction ID\.",
)


def _is_explained(response: Any) -> bool:
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return any(re.fullmatch(pattern, error) for pattern in _EXPLAINED)


def _but_explained(check: Any) -> Any:
    def checked(ctx: CheckContext, response: Any, case: Any) -> bool | None:
        try:
            found: bool | None = check(ctx, response, case)
        except Failure:
            if not _is_explained(response):
                raise
            return None
        return found

    checked.__name__ = f"{check.__name__}_but_explained"
    return checked


for _check in REPLACED:
    schemathesis.check(_but_explained(_check))
