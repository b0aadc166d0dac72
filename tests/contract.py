"""Checks responses against /openapi.json: status, body and headers are those that it describes."""

import copy
import functools
import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from predictor.api.app import create_app
from predictor.config import Config

#: Headers of HTTP itself, and of every response.
_COMMON = {
    *("allow", "connection", "content-length", "content-security-policy", "content-type", "date"),
    *("referrer-policy", "server", "x-content-type-options"),
    *("transfer-encoding", "www-authenticate", "x-accel-buffering", "x-request-id"),
}

#: Errors that any path may have.
_ANYWHERE = {401, 403, 404, 405, 500}


class Contract:
    """What `document`, an OpenAPI document, says of responses."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self._strict = copy.deepcopy(document["components"])
        for schema in self._strict["schemas"].values():
            if "properties" in schema:
                schema["additionalProperties"] = False
        self._paths = {
            re.compile(re.sub(r"{\w+}", "[^/]+", path)): operations
            for path, operations in document["paths"].items()
        }

    def check(self, response: httpx.Response) -> None:
        """Raises AssertionError where the document does not describe the response."""
        request = response.request
        where = f"{request.method} {request.url.path} {response.status_code}"
        operations = next(
            (self._paths[path] for path in self._paths if path.fullmatch(request.url.path)), None
        )
        if request.method == "HEAD" or (operations is None and response.status_code < 400):
            return  # /docs
        operation = (operations or {}).get(request.method.lower(), {"responses": {}})
        described = operation["responses"].get(str(response.status_code))
        if described is None:
            assert response.status_code in _ANYWHERE, f"{where} is not described"
            schema = {"$ref": "#/components/schemas/Error"}
            described = {"content": {"application/json": {"schema": schema}}}
            described["headers"] = {"Cache-Control": {"schema": {}}}
        self._check_headers(response, described.get("headers", {}), where)
        self._check_body(response, described.get("content", {}), where)

    def _check_headers(self, response: httpx.Response, described: Any, where: str) -> None:
        known = {name.lower(): header["schema"] for name, header in described.items()}
        unknown = set(response.headers) - set(known) - _COMMON
        assert not unknown, f"{where} has headers that are not described: {unknown}"
        assert "x-request-id" in response.headers, where
        for name in set(known) & set(response.headers):
            self._validate(response.headers[name], known[name], f"{where}: {name}")
        must = {404: {"cache-control"}, 405: {"allow"}, 503: {"retry-after"}}
        assert must.get(response.status_code, set()) <= set(response.headers), where

    def _check_body(self, response: httpx.Response, described: Any, where: str) -> None:
        if not described:
            assert not response.read(), f"{where} has a body that is not described"
            return
        media_type = response.headers["content-type"].partition(";")[0]
        assert {media_type, "*/*"} & described.keys(), f"{where} has a body of type {media_type}"
        if media_type == "application/json":
            response.read()
            self._validate(response.json(), described[media_type]["schema"], where)

    def _validate(self, value: Any, schema: Any, where: str) -> None:
        errors = Draft202012Validator(schema | {"components": self._strict}).iter_errors(value)
        problems = [f"{error.json_path} {error.message}"[:200] for error in errors]
        assert not problems, f"{where} is not as described: {problems}"


@functools.cache
def contract(model: str = "tests.models.callables:anything") -> Contract:
    """That of the api with this model; by default, one without types."""
    return Contract(create_app(Config(model=model)).openapi())
