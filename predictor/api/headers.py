"""What a request's headers say. Each is read strictly: never a silent other meaning."""

import re
from dataclasses import dataclass

from fastapi import HTTPException
from starlette.datastructures import Headers

from predictor.prediction import parse_event_id

#: Seconds that `Prefer: wait=n` holds an answer at most; proxies cut connections after a minute.
MOST_WAIT = 60

#: Seconds that `Cancel-After` may say at most: thirty days.
_MOST_CANCEL_AFTER = 30 * 86400

#: Characters of a `Prefer` that is looked at: more would take too long to take apart.
_MOST_PREFER = 1000

_MODES = {"true": True, "false": False}
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|s|m|h))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_VISIBLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|$))+')


@dataclass(frozen=True, slots=True)
class Preferences:
    """What `Prefer` asks for (RFC 7240), as far as we know it; the rest is ignored."""

    respond_async: bool = False
    #: seconds to hold the answer; None: no wish
    wait: int | None = None

    def applied(self) -> dict[str, str]:
        """The header that says which were honoured."""
        names = ["respond-async"] if self.respond_async else []
        names += [] if self.wait is None else [f"wait={self.wait}"]
        return {"Preference-Applied": ", ".join(names)} if names else {}


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a prediction is to be made."""

    #: `Async-Mode`; None: not said
    is_async: bool | None
    preferences: Preferences
    #: seconds over queue and run; None: no limit
    cancel_after: float | None
    #: the client's key
    idempotency_key: str | None
    #: where to tell its end; not looked at yet
    webhook: str | None

    @property
    def is_queued(self) -> bool:
        """Whether it goes through the queue, waited for or not."""
        wishes = self.preferences
        known = self.is_async or wishes.respond_async or wishes.wait is not None
        return known or self.idempotency_key is not None

    def wait(self, timeout: float) -> float:
        """Seconds to hold the answer; a sync call that is queued for its key takes `timeout`."""
        if self.preferences.wait is not None:
            return self.preferences.wait
        return 0 if self.is_async or self.preferences.respond_async else timeout


def wishes(headers: Headers) -> Wishes:
    """What the headers of `POST /predict` ask for. `Async-Mode` has the last word."""
    is_async, preferred = _async_mode(headers), preferences(headers)
    if is_async:
        preferred = Preferences()
    elif is_async is False:
        preferred = Preferences(wait=preferred.wait)
    webhook = _only(headers, "Webhook-Url")
    read = Wishes(is_async, preferred, _cancel_after(headers), _idempotency_key(headers), webhook)
    if webhook is not None and not read.is_queued:
        raise HTTPException(
            400, "Header Webhook-Url needs a prediction that is queued: add Async-Mode: true."
        )
    return read


def preferences(headers: Headers) -> Preferences:
    """What `Prefer` says. What is not understood is ignored, and the first of two counts."""
    said: dict[str, str] = {}
    value = ",".join(headers.getlist("prefer"))
    for preference in _PREFERENCE.findall(value) if len(value) <= _MOST_PREFER else ():
        name, _, wish = preference.partition(";")[0].partition("=")
        said.setdefault(name.strip().lower(), wish.strip().strip('"'))
    wait = said.get("wait", "")
    seconds = min(int(wait), MOST_WAIT) if re.fullmatch(r"[0-9]+", wait) else None
    return Preferences("respond-async" in said, seconds)


def last_event_id(headers: Headers) -> str:
    """The event after which to go on; the empty string: from the first."""
    value = (_only(headers, "Last-Event-ID") or "").strip()
    if value and parse_event_id(value) is None:
        raise HTTPException(400, "Header Last-Event-ID must be an id that this stream sent.")
    return value


def _async_mode(headers: Headers) -> bool | None:
    values = {value.strip().lower() for value in headers.getlist("async-mode")}
    if not values:
        return None
    if len(values) > 1:
        raise HTTPException(400, "Header Async-Mode is given twice, with different values.")
    (value,) = values
    if value not in _MODES:
        raise HTTPException(400, f"Header Async-Mode must be true or false, not {value[:40]!r}.")
    return _MODES[value]


def _cancel_after(headers: Headers) -> float | None:
    value = _only(headers, "Cancel-After")
    if value is None:
        return None
    text = value.strip().lower()
    parts = _PART.findall(text) if _DURATION.fullmatch(text) else []
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _MOST_CANCEL_AFTER:
        raise HTTPException(
            400, "Header Cancel-After must be a time like 30s, 1m30s or 500ms, at most 720h."
        )
    return seconds


def _idempotency_key(headers: Headers) -> str | None:
    value = _only(headers, "Idempotency-Key")
    if value is None:
        return None
    key = value.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _VISIBLE.fullmatch(key):
        raise HTTPException(
            400, "Header Idempotency-Key must be 1 to 255 visible ASCII characters."
        )
    return key


def _only(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1:
        raise HTTPException(400, f"Header {name} is given twice.")
    return values[0] if values else None
