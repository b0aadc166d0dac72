"""One attempt to deliver a webhook, signed according to https://www.standardwebhooks.com."""

import asyncio
import calendar
import email.utils
import logging
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook

from predictor import __version__
from predictor.errors import WebhookRefused
from predictor.prediction import Attempt, Prediction, Trace, encode, splice, timestamp
from predictor.webhooks.target import Allowed, parse_target, permitted_addresses

logger = logging.getLogger(__name__)

_LONGEST_RETRY_AFTER = 24 * 3600.0  # seconds


class Sender:
    """Sends webhooks, each over a new connection to an address that was just checked.

    By httpx' transport, not a client: no redirects, cookies or proxies; nothing is left to close.
    """

    def __init__(self, allowed: Allowed, secrets: Sequence[str]) -> None:
        self._allowed = allowed
        self._keys = [Webhook(secret) for secret in secrets]
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(limits=limits)

    async def send(
        self, url: str, id_: str, body: bytes, limit: asyncio.Timeout, trace: Trace
    ) -> Attempt:
        """Try once. Raises nothing but CancelledError."""
        at, began = time.time(), time.monotonic()
        try:
            async with limit:
                response = await self._post(parse_target(url), id_, int(at), body, trace)
        except Exception as error:
            seconds = time.monotonic() - began
            return Attempt(at, seconds, error=_describe(error, seconds))
        return _attempt(response, at, time.monotonic() - began)

    async def _post(
        self, url: httpx.URL, id_: str, at: int, body: bytes, trace: Trace
    ) -> httpx.Response:
        """The response, without a body, of the first address that accepts a connection."""
        moment = datetime.fromtimestamp(at, UTC)
        signatures = [key.sign(id_, moment, body.decode()) for key in self._keys]
        headers = {
            "host": url.netloc.decode("ascii"),
            "user-agent": f"predictor/{__version__}",
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "webhook-id": id_,
            "webhook-timestamp": str(at),
            "webhook-signature": " ".join(signatures),
            **trace,
        }
        extensions = {
            "sni_hostname": url.raw_host.decode("ascii"),  # the certificate must name the host
            "timeout": {"connect": 5.0},  # seconds, for each address
        }
        options: dict[str, Any] = {"headers": headers, "extensions": extensions}
        failure: Exception = WebhookRefused("The host that Webhook-Url names cannot be found.")
        for address in await permitted_addresses(url, self._allowed):
            to = url.copy_with(host=str(address))
            request = httpx.Request("POST", to, content=_pieces(body), **options)
            try:
                response = await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
            else:
                await response.aclose()
                return response
        raise failure


def payload(prediction: Prediction) -> bytes:
    """The body, as Standard Webhooks advises; the same at each attempt."""
    data = {"prediction_id": encode(prediction.id), "status": encode(prediction.state)}
    if prediction.output:
        data["output"] = prediction.output.to_json()
    elif prediction.error:
        data["error"] = encode(str(prediction.error))
    kind, at = f"prediction.{prediction.state}", timestamp(prediction.finished or 0)
    return splice(type=encode(kind), timestamp=encode(at), data=splice(**data))


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """`body` in pieces: a connection copies the piece that waits to be sent."""
    for start in range(0, len(body), 2**16):
        yield body[start : start + 2**16]


def _attempt(response: httpx.Response, at: float, seconds: float) -> Attempt:
    status = response.status_code
    if response.is_success:
        return Attempt(at, seconds, status)
    if status == 410:
        return Attempt(at, seconds, status, "It answered 410: it wants no more.")
    error = f"It answered {status}"
    error += "; redirects are not followed." if response.has_redirect_location else "."
    wait, text = None, response.headers.get("retry-after", "")
    with suppress(ValueError, OverflowError):  # neither a number nor an HTTP date
        until = None if text.isdecimal() else calendar.timegm(email.utils.parsedate(text) or ())
        wait = float(text) if until is None else until - at - seconds
        wait = min(max(wait, 0.0), _LONGEST_RETRY_AFTER)
    return Attempt(at, seconds, status, error, wait)


def _describe(error: Exception, seconds: float) -> str:
    cause: BaseException = error
    while cause.__context__:
        cause = cause.__context__
    match error, cause:
        case WebhookRefused(), _:
            text = str(error)
        case TimeoutError(), _:
            text = f"It did not answer within {seconds:.2g} s."
        case httpx.ConnectError(), ssl.SSLCertVerificationError() as refusal:
            text = f"Its certificate is not accepted: {refusal.verify_message.rstrip('.')}."
        case httpx.ConnectError(), ssl.SSLError():
            text = "It does not speak TLS."
        case ((httpx.ConnectError() | httpx.ConnectTimeout()), _):
            text = "It could not be connected to."
        case httpx.ProtocolError(), _:
            text = "It did not answer in HTTP."
        case httpx.TransportError(), _:
            text = "The connection broke."
        case _:
            text = "Something went wrong here; the log says what."
            logger.error("a webhook could not be sent", exc_info=error)
    return text
