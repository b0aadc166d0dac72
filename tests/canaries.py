"""What no log and no error may show: what clients send and get, and the secrets of the settings."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

_LEAST = 12  # characters: what is shorter may be in any log
_ID = re.compile(r"[0-9a-f]{32}")
_MOST = 100_000  # bytes of a body that is looked into
_SECRET_HEADERS = ("authorization", "idempotency-key", "webhook-url")
_SECRET_SETTINGS = ("api_keys", "webhook_secrets")


class Canaries:
    """The strings of one test that are to be found in no log of its processes."""

    def __init__(self) -> None:
        self._all = set[str]()

    def set(self, settings: dict[str, Any]) -> None:
        """Remember the secrets in `settings`, by their names without prefix."""
        for name in _SECRET_SETTINGS:
            for value in re.split(r"[,:]", str(settings.get(name, ""))):
                self._add(value.removeprefix("whsec_"))
        if password := urlsplit(str(settings.get("redis_url", ""))).password:
            self._all.add(password)

    def note(self, response: httpx.Response) -> None:
        """Remember what was sent and received."""
        request = response.request
        secrets = [request.headers[name] for name in _SECRET_HEADERS if name in request.headers]
        for secret in secrets:
            self._add(secret.removeprefix("Bearer "))
        with contextlib.suppress(httpx.StreamError):
            self._look_into(request.content)
        if response.headers.get("content-type") == "application/json":
            body = response.read()
            if response.status_code < 400:
                self._look_into(body)
            elif response.status_code != 422:  # a model may name its input
                assert not [
                    each for each in secrets if len(each) >= _LEAST and each in response.text
                ]

    def found_in(self, log: str) -> list[str]:
        return [canary for canary in self._all if canary in log]

    def _add(self, value: str) -> None:
        if len(value) >= _LEAST and not _ID.fullmatch(value):
            self._all.add(value)

    def _look_into(self, body: bytes) -> None:
        try:
            value = json.loads(body) if len(body) <= _MOST else None
        except (ValueError, RecursionError):
            return
        if isinstance(value, dict):
            output = value.get("output")
            value = output if isinstance(output, dict) else value
            for text in _texts([value.get("input"), value.get("result")]):
                self._add(text)


def _texts(value: Any) -> Iterator[str]:
    values = [value]  # not by recursion: it may be nested deeper than Python's limit
    while values:
        each = values.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict | list):
            values.extend(each.values() if isinstance(each, dict) else each)
