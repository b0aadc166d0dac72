"""A name service that knows what the test tells it."""

import socket
from typing import Any

import pytest


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of each name; of several answers, all but the last are given once."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        if not (answers := known.get(host)):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        return [(0, 0, 0, "", (address, 0)) for address in answer.split()]

    monkeypatch.setattr("predictor.webhooks.target.getaddrinfo", getaddrinfo)
    return known
