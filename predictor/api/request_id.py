"""`X-Request-ID`: the id of a request, from its client or proxy, or generated."""

import os
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestId:
    """Adds the id of its request, or a new one, to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope.get("headers", ()) if name == b"x-request-id"]
        is_usable = len(given) == 1 and _ID.fullmatch(given[0])
        request_id = given[0] if is_usable else os.urandom(16).hex().encode()
        scope["request_id"] = request_id.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        await self._app(scope, receive, send_with_id)
