"""Headers, each declared once: how it is read, checked and documented."""

import functools
import math
import os
import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from predictor.errors import InvalidHeader
from predictor.logs import about, say_about
from predictor.prediction import parse_id

_MAX_WAIT = 60  # seconds of `Prefer: wait=n`; proxies cut connections after a minute
_MAX_CANCEL_AFTER = 30 * 86400  # seconds
_MAX_PREFER = 1000  # characters that are parsed; more would take too long

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)"
_EVENT_ID = r"[0-9]{1,15}"
_VISIBLE = r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|$))+')
_MEDIA_RANGE = re.compile(r"([^\s,;]+)[^,]*?(?:; *q=([01]?\.[0-9]{0,3}|[01]) *)?(?:,|$)")
#: Media types in which no browser would run what a client has sent, and those that are no file's.
_FILE = re.compile(r"(application|audio|image|video)/(?!.*(html|script|xml)$)[a-z0-9_.+-]{1,99}")
_EVENTS = "text/event-stream"
_NO_FILES = {"*", "*/*", "application/*", "application/json", _EVENTS}
FILE: Final = "application/octet-stream"


class Header(NamedTuple):
    name: str
    description: str
    pattern: str = "."
    format: Callable[..., str] = str

    def __call__(self, *values: Any) -> dict[str, str]:
        return {self.name: self.format(*values)}


RETRY_AFTER = Header(
    "Retry-After",
    "Seconds to wait before the next try.",
    "^[0-9]+$",
    lambda seconds=1: str(max(1, math.ceil(seconds))),
)
CACHE_CONTROL = Header(
    "Cache-Control", "`no-store`: it may change.", "^no-store$", lambda: "no-store"
)
LOCATION = Header("Location", "Where the prediction can be read.", "/predict/[^/]+$")
SERVER_TIMING = Header(
    "Server-Timing",
    "Milliseconds that it waited and ran: `queue;dur=3.1, run;dur=1002.4`.",
    r"^queue;dur=[0-9.]+, run;dur=[0-9.]+$",
    lambda queue, run: f"queue;dur={queue * 1000:.1f}, run;dur={run * 1000:.1f}",
)
PREFERENCE_APPLIED = Header("Preference-Applied", "The preferences that were honored.")
IDEMPOTENCY_REPLAYED = Header(
    "Idempotency-Replayed", "`true`: the key was used before, for this prediction.", "^true$"
)
CONNECTION = Header("Connection", "`close`: the body was not read.", "^close$", lambda: "close")
VARY = Header("Vary", "The result may be JSON, or bytes.", "^Accept$", lambda: "Accept")
NO_WORKERS = Header("Predictor-Workers", "`0`: none is alive to run it.", "^0$", lambda: "0")
AUTHENTICATE = Header("WWW-Authenticate", "The scheme.", "^Bearer$", lambda: "Bearer")
RATE_LIMIT_POLICY = Header("RateLimit-Policy", "The quota that is used up.", '^"(rate|open)";q=')
RATE_LIMIT = Header("RateLimit", "When there is more of it, in seconds.", '^"(rate|open)";r=0;t=')
NO_STORE = CACHE_CONTROL()
STREAM = NO_STORE | {"X-Accel-Buffering": "no"}

#: For browsers, of every response: it is no page. Each header costs half a percent of a request.
SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)


def _page(inline: str = "") -> tuple[tuple[bytes, bytes], ...]:
    """The same of a page, which may load what is served here. `inline`: more that may run."""
    policy = (
        f"default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' "
        "blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    return (SECURITY[0][0], policy.encode()), SECURITY[1], (b"referrer-policy", b"no-referrer")


_PAGE, _DOCS = _page(), _page(" 'unsafe-inline'")

#: The headers of every response with a status.
BY_STATUS = {
    401: [AUTHENTICATE],
    404: [CACHE_CONTROL],
    408: [CONNECTION],
    413: [CONNECTION],
    429: [RETRY_AFTER, RATE_LIMIT_POLICY, RATE_LIMIT],
    503: [RETRY_AFTER],
}


class Preferences(NamedTuple):
    """The preferences in `Prefer` (RFC 7240) that are supported; others are ignored."""

    respond_async: bool = False
    wait: int | None = None  # seconds to hold the response
    is_minimal: bool = False  # leave the input out of the response

    @classmethod
    @functools.lru_cache
    def parse(cls, prefer: str | None) -> Self:
        """Of two preferences of one name the first counts (RFC 7240)."""
        found, text = dict[str, str](), prefer or ""
        for preference in _PREFERENCE.findall(text if len(text) <= _MAX_PREFER else ""):
            name, _, argument = preference.partition(";")[0].partition("=")
            found.setdefault(name.strip().lower(), argument.strip().strip('"'))
        wait = found.get("wait", "")
        seconds = min(int(wait), _MAX_WAIT) if re.fullmatch(r"[0-9]+", wait) else None
        return cls("respond-async" in found, seconds, found.get("return") == "minimal")

    def applied(self) -> dict[str, str]:
        names = ["respond-async"] if self.respond_async else []
        names += [] if self.wait is None else [f"wait={self.wait}"]
        names += ["return=minimal"] if self.is_minimal else []
        return PREFERENCE_APPLIED(", ".join(names)) if names else {}


def accepts_events(accept: list[str]) -> bool:
    """Whether events are named, and not refused with `q=0` (RFC 9110, 12.4.2)."""
    text = ",".join(accept).lower()
    return _EVENTS in text and any(
        kind == _EVENTS and float(f"0{q or 1}") > 0 for kind, q in _MEDIA_RANGE.findall(text)
    )


def file_type(accept: list[str]) -> str | None:
    """The media type in which bytes are preferred; None: as JSON. Of equals the first counts."""
    ranges = _MEDIA_RANGE.findall(",".join([*accept, "*/*;q=.001"]).lower())
    preferred: str = max(ranges, key=lambda each: float(f"0{each[1] or 1}"))[0]
    if preferred in _NO_FILES or preferred.endswith("+json"):
        return None
    return preferred if _FILE.fullmatch(preferred) else FILE


def _mode(values: list[str]) -> bool:
    modes = {value.strip().lower() for value in values}
    if modes not in ({"true"}, {"false"}):
        raise ValueError(f"must be true or false, not {', '.join(sorted(modes))[:40]!r}.")
    return modes == {"true"}


def _only(values: list[str]) -> str:
    if len(values) > 1:
        raise ValueError("is given twice.")
    return values[0].strip()


def _duration(values: list[str]) -> float:
    text = _only(values).lower()
    parts = re.findall(_DURATION, text) if re.fullmatch(f"({_DURATION})+", text) else []
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _MAX_CANCEL_AFTER:
        raise ValueError("must be a time like 30s, 1m30s or 500ms, at most 720h.")
    return seconds


def _key(values: list[str]) -> str:
    key = _only(values)
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not re.fullmatch(_VISIBLE, key):
        raise ValueError("must be 1 to 255 visible ASCII characters.")
    return key


def _event_id(values: list[str]) -> str:
    if (value := _only(values)) and not re.fullmatch(_EVENT_ID, value):
        raise ValueError("must be an id that this stream sent.")
    return value


_MODE = PlainValidator(_mode, json_schema_input_type=Literal["true", "false"])


def _text(read: Callable[[list[str]], Any], pattern: str = "") -> PlainValidator:
    """How a header is read; `pattern`: what is documented of its values."""
    form = Field(pattern=f"^({pattern})$") if pattern else Field()
    return PlainValidator(read, json_schema_input_type=Annotated[str, form])


_LIST = _text(",".join)


class RequestHeaders(BaseModel):
    """Headers, a field each; what is read, checked and documented is declared there."""

    model_config = ConfigDict(
        alias_generator=lambda name: name.replace("_", "-").title(), use_attribute_docstrings=True
    )

    @classmethod
    def read(cls, headers: Headers) -> Self:
        """Raises InvalidHeader."""
        names = cls._names()
        given: dict[str, list[str]] = {}
        for name, value in headers.raw:
            if name in names:
                given.setdefault(names[name], []).append(value.decode("latin-1"))
        try:
            return cls.model_validate(given) if given else cls._absent()
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            message = f"Header {problem['loc'][0]} {problem['ctx']['error']}"
            raise InvalidHeader(message) from None

    @classmethod
    @functools.cache
    def _names(cls) -> dict[bytes, str]:
        return {str(f.alias).lower().encode(): str(f.alias) for f in cls.model_fields.values()}

    @classmethod
    @functools.cache
    def _absent(cls) -> Self:
        return cls.model_validate({})


class DirectRoute(APIRoute):
    """Calls an endpoint that takes `options` with these headers, and the ids in the path.

    FastAPI ignores the second of two headers, and its dependencies and exit stacks take as long as
    all the rest of `POST /predict`.
    """

    @functools.cached_property
    def _options(self) -> type[RequestHeaders] | None:
        return get_type_hints(self.endpoint).get("options")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._options or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # which refuses other methods
            return
        request = Request(scope, receive, send)
        options = self._options.read(request.headers)
        owner = scope["state"]["owner"]
        ids = {name: parse_id(text, owner) for name, text in request.path_params.items()}
        if ids:
            say_about(**ids)
        response = await self.endpoint(request, options=options, **ids)
        await response(scope, receive, send)


class PredictHeaders(RequestHeaders):
    async_mode: Annotated[bool | None, _MODE] = Field(None, examples=["true"])
    """`true`: accept the prediction now and run it later, whatever `Prefer` says: the response is
    the 202 at once. `false` or absent: respond with the result. Case does not matter."""

    prefer: Annotated[str | None, _LIST] = Field(None, examples=["wait=5"])
    """`respond-async`: as `Async-Mode: true`. `wait=n`: queue the prediction, and respond with the
    result if it ends within `n` seconds, else with the 202 of the same run (RFC 7240). Without
    effect beside `Async-Mode: true`. `return=minimal`: leave the input out of the response."""

    idempotency_key: Annotated[str | None, _text(_key, _VISIBLE)] = Field(
        None, examples=["order-4711"]
    )
    """1 to 255 visible ASCII characters of your choice. The same key and body are the same
    prediction, for as long as it is known: a repeated request never runs twice."""

    cancel_after: Annotated[float | None, _text(_duration, f"({_DURATION})+")] = Field(
        None, examples=["30s"]
    )
    """Timeout of queue and run together, like `30s`, `1m30s` or `500ms`: then the prediction ends
    with 504. One that expires in the queue is never run."""

    webhook_url: Annotated[str | None, _text(_only)] = Field(
        None, examples=["https://example.com/predictions"]
    )
    """Gets a signed POST (Standard Webhooks) when the prediction has ended, however it ends. Only
    for predictions that are queued."""

    @model_validator(mode="after")
    def _webhook_needs_queue(self) -> Self:
        if self.webhook_url is not None and not self.is_queued:
            problem = "needs a prediction that is queued: add Async-Mode: true."
            raise InvalidHeader(f"Header Webhook-Url {problem}")
        return self

    @functools.cached_property
    def preferences(self) -> Preferences:
        """Those that `Async-Mode` leaves in effect."""
        preferences = Preferences.parse(self.prefer)
        if self.async_mode is None:
            return preferences
        wait = None if self.async_mode else preferences.wait
        return preferences._replace(respond_async=False, wait=wait)

    @property
    def is_queued(self) -> bool:
        is_preferred = self.preferences.respond_async or self.preferences.wait is not None
        return self.async_mode or is_preferred or self.idempotency_key is not None

    def wait(self, timeout: float) -> float:
        """Seconds to hold the response; a sync call that is queued for its key takes `timeout`."""
        if self.preferences.wait is not None:
            return self.preferences.wait
        return 0 if self.async_mode or self.preferences.respond_async else timeout


class ReadHeaders(RequestHeaders):
    prefer: Annotated[str | None, _LIST] = Field(None, examples=["wait=30"])
    """`wait=n`: hold the response until the prediction has ended, at most `n` seconds, 60 at most
    (RFC 7240). `return=minimal`: leave the input out of the response."""


class EventsHeaders(RequestHeaders):
    last_event_id: Annotated[str | None, _text(_event_id, f"({_EVENT_ID})?")] = Field(
        None, alias="Last-Event-ID", examples=["3"]
    )
    """The id of the last event that you have: go on after it. Browsers send it themselves."""

    prefer: Annotated[str | None, _LIST] = Field(None, examples=["return=minimal"])
    """`return=minimal`: leave the input out of `completed` (RFC 7240)."""


class RequestId:
    """Adds to every response `X-Request-ID`, that of its request or a new one, and SECURITY."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope.get("headers", ()) if name == b"x-request-id"]
        is_usable = len(given) == 1 and _REQUEST_ID.fullmatch(given[0])
        request_id = given[0] if is_usable else os.urandom(16).hex().encode()
        scope["request_id"] = request_id.decode()
        if scope["type"] == "http":
            about.set({"request_id": scope["request_id"]})
        path = scope.get("path", "")
        security = SECURITY
        if path[-1:] == "/" or path[-5:] == "/docs":
            security = _PAGE if path[-1:] == "/" else _DOCS
        more = (*security, (b"x-request-id", request_id))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].extend(more)
            await send(message)

        await self._app(scope, receive, send_with_id)
