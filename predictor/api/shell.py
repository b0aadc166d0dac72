"""What stands around the application: who may send it requests, and which."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from predictor import errors
from predictor.api.keys import Keys
from predictor.api.responses import error_response
from predictor.config import entries
from predictor.prediction import owner_of
from predictor.process import UNPROTECTED, beyond_loopback

logger = logging.getLogger(__name__)

_HEALTH = ("/health/",)
#: Paths, by how they begin, that need no key if PREDICTOR_PUBLIC has their name.
_PUBLIC = {"docs": ("/docs", "/openapi.json", "/static-offline-docs/"), "metrics": ("/metrics",)}
_OPERATOR = owner_of("operator")


class Authenticate:
    """Lets in who has a key, and puts whose it is into the state. Reads no body."""

    def __init__(self, app: ASGIApp, keys: Keys, public: str) -> None:
        """`public`: PREDICTOR_PUBLIC."""
        self._app, self._keys = app, keys
        self._open = _HEALTH + tuple(path for part in entries(public) for path in _PUBLIC[part])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error: errors.RequestError | None = None
        if scope["type"] != "lifespan":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            owner = self._keys.owner(scope["headers"])
            if not path.startswith(self._open):
                if owner is None:
                    error = errors.Unauthorized()
                elif path == "/metrics" and self._keys.are_shared and owner != _OPERATOR:
                    error = errors.Forbidden("Only the key of the name operator may read metrics.")
            scope["state"] = {**scope["state"], "owner": owner or ""}
        if error:
            await error_response(error.status, str(error))(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def warn_if_exposed() -> None:
    """Log a warning if this process listens where other machines can reach it."""
    await asyncio.sleep(1)  # servers listen once the application has started
    if addresses := beyond_loopback(_listening()):
        logger.warning(UNPROTECTED, addresses)


def _listening() -> Iterator[Any]:
    """Where this process listens: the names of its sockets."""
    for path in Path("/dev/fd").iterdir():
        with suppress(OSError, ValueError):
            listener = socket.socket(fileno=int(path.name))
            try:
                if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield listener.getsockname()
            finally:
                listener.detach()
