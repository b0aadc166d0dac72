"""The store's URL, read without the store's client: the supervisor does without it."""

import contextlib
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from predictor.errors import ConfigError


class Sentinels(NamedTuple):
    """A primary that Sentinels know by its name."""

    hosts: list[tuple[str, int]]
    name: str
    options: dict[str, Any]  # database, user and password of the primary, as redis-py calls them


def check_url(url: str) -> Sentinels | None:
    """The service that `url` names, if it does. Raises ConfigError for what is no store's."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "redis+sentinel":
            return _sentinels(parts)
        is_host = parts.scheme in {"redis", "rediss"} and parts.hostname and parts.port != 0
        if is_host or (parts.scheme == "unix" and parts.path):
            return None
    raise ConfigError(
        "PREDICTOR_REDIS_URL: must look like redis://[user:password@]host[:port][/database], "
        "rediss://…, unix:///path/to/socket or redis+sentinel://host:port,host:port/service"
    )


def _sentinels(url: SplitResult) -> Sentinels:
    name, _, database = url.path.strip("/").partition("/")
    login = {"username": url.username, "password": url.password}
    options = {"db": int(database or 0)} | {key: unquote(v) for key, v in login.items() if v}
    each = [urlsplit(f"//{host}") for host in url.netloc.rpartition("@")[2].split(",")]
    if not name or not all(host.hostname and host.port != 0 for host in each):
        raise ValueError("a host and a service must be named")
    return Sentinels([(str(host.hostname), host.port or 26379) for host in each], name, options)
