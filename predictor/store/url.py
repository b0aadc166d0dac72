"""The store's URL, read without the store's client: the supervisor does without it."""

import contextlib
import os
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from predictor.errors import ConfigError

_Rules = dict[str, tuple[Callable[[str], object], str]]  # whether a value is right, and the rule
_DATABASE = re.compile("/*[0-9]{0,9}/*")
_FILE = (lambda path: os.access(path, os.R_OK), "a file that can be read")
_LOGIN: _Rules = {
    "db": (re.compile("[0-9]{1,9}").fullmatch, "a number"),
    "username": (bool, "a name"),
    "password": (bool, "a password"),
}
_TLS: _Rules = {
    "ssl_ca_certs": _FILE,
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
    "ssl_cert_reqs": (re.compile("none|required").fullmatch, "none or required"),
    "ssl_check_hostname": (re.compile("(?i)no?|f(alse)?|0").fullmatch, "no, or absent"),
}
#: The options of redis-py that a URL can have, by its scheme.
_OPTIONS: Final[dict[str, _Rules]] = {
    "redis": _LOGIN,
    "rediss": _LOGIN | _TLS,
    "unix": _LOGIN,
    "redis+sentinel": {},
}


class Sentinels(NamedTuple):
    """A primary that Sentinels know by its name."""

    hosts: list[tuple[str, int]]
    name: str
    options: dict[str, Any]  # database, user and password of the primary, as redis-py calls them


def check_url(url: str) -> Sentinels | None:
    """The service that `url` names, if it does. Raises ConfigError for what is no store's."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        service = _sentinels(parts) if parts.scheme == "redis+sentinel" else None
        is_server = parts.scheme in {"redis", "rediss"} and _DATABASE.fullmatch(parts.path)
        if service or (is_server and _is_host(parts)) or (parts.scheme == "unix" and parts.path):
            _check_options(parts)
            return service
    raise ConfigError(
        "PREDICTOR_REDIS_URL: must look like redis://[user:password@]host[:port][/number], "
        "rediss://…, unix:///path/to/socket or redis+sentinel://host:port,host:port/service"
    )


def _check_options(url: SplitResult) -> None:
    """Raises ConfigError, which names no part of the URL that may be a secret."""
    known = _OPTIONS[url.scheme]
    for name, value in parse_qsl(url.query):
        if name not in known:
            text = f"{url.scheme}:// can have the options {', '.join(known) or '(none)'}"
            raise ConfigError(f"PREDICTOR_REDIS_URL: has an unknown option: {text}")
        is_right, rule = known[name]
        if not is_right(value):
            raise ConfigError(f"PREDICTOR_REDIS_URL: its {name} must be {rule}")


def _is_host(url: SplitResult) -> bool:
    """Whether it names a host that can be looked up. Raises ValueError, too."""
    return bool(url.hostname and url.port != 0 and url.hostname.encode("idna"))


def _sentinels(url: SplitResult) -> Sentinels:
    name, _, database = url.path.strip("/").partition("/")
    login = {"username": url.username, "password": url.password}
    each = [urlsplit(f"//{host}") for host in url.netloc.rpartition("@")[2].split(",")]
    if not name or not _DATABASE.fullmatch(database) or not all(map(_is_host, each)):
        raise ValueError("a host and a service must be named")
    options = {"db": int(database or 0)} | {key: unquote(v) for key, v in login.items() if v}
    return Sentinels([(str(host.hostname), host.port or 26379) for host in each], name, options)
