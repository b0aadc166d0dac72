"""Connections to the store from its URL: one server, or a primary that Sentinels know."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from arq.connections import RedisSettings
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, SSLConnection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.config import SENTINEL_SCHEME
from predictor.errors import ConfigError

#: Where a process looks that was started by hand and told no store.
DEFAULT_URL = "redis://localhost:6379"

_SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class _Service:
    """A primary by its name among Sentinels."""

    sentinels: list[tuple[str, int]]
    name: str
    options: dict[str, Any]


def connection_pool(url: str, *, at_most: int | None = None, **options: Any) -> ConnectionPool:
    """A pool of connections to `url`; `options` are redis-py's. Connects to nothing yet.

    `at_most` bounds the connections; who comes later waits for one. A password may be
    percent-encoded; `rediss://` checks the host's name. Raises ConfigError for an option in the URL
    that redis-py does not know.
    """
    if service := _service(url):
        options |= service.options
        sentinel = Sentinel(service.sentinels, sentinel_kwargs=options | _no_login(), **options)
        kind = _honest(SentinelManagedConnection)
        return SentinelConnectionPool(service.name, sentinel, connection_class=kind, **options)
    try:
        given: dict[str, Any] = dict(parse_url(url))
        if given.get("connection_class") is SSLConnection:
            given = {"ssl_check_hostname": True} | given
        given["connection_class"] = _honest(given.get("connection_class", Connection))
        pool = (
            BlockingConnectionPool(max_connections=at_most, timeout=1, **(options | given))
            if at_most
            else ConnectionPool(**(options | given))
        )
        pool.make_connection()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"PREDICTOR_REDIS_URL: {error}") from None
    return pool


def _honest(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """`kind`, but raising ConnectionError where uvloop says RuntimeError of a closed connection."""

    class Honest(kind):  # type: ignore[misc, valid-type]
        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            try:
                await super().send_packed_command(command, check_health)
            except RuntimeError as error:
                raise RedisConnectionError("The connection is closed.") from error

    return Honest


def blocking_client(url: str, **options: Any) -> "redis.Redis":
    """A client for a thread of its own."""
    if service := _service(url):
        options |= service.options
        sentinel = redis.Sentinel(
            service.sentinels, sentinel_kwargs=options | _no_login(), **options
        )
        client: redis.Redis = sentinel.master_for(service.name)
        return client
    return redis.Redis(connection_pool=redis.ConnectionPool.from_url(url, **options))


def arq_settings(url: str) -> RedisSettings:
    """The same address in arq's own form, for `arq --check`, which knows no other."""
    if service := _service(url):
        return RedisSettings(
            host=service.sentinels,
            sentinel=True,
            sentinel_master=service.name,
            database=service.options.get("db", 0),
            username=service.options.get("username"),
            password=service.options.get("password"),
        )
    given = connection_pool(url).connection_kwargs
    return RedisSettings(
        unix_socket_path=given.get("path"),
        database=given.get("db", 0),
        ssl=url.startswith("rediss:"),
        **{name: given[name] for name in given.keys() & RedisSettings.__dataclass_fields__.keys()},
    )


def _service(url: str) -> _Service | None:
    """What `redis+sentinel://[user:password@]host[:port][,…]/service[/database]` says."""
    parts = urlsplit(url)
    if parts.scheme != SENTINEL_SCHEME:
        return None
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    name, _, database = parts.path.strip("/").partition("/")
    options: dict[str, Any] = {"db": int(database or 0)}
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    sentinels = []
    for each in hosts.split(","):
        host, _, port = each.partition(":")
        sentinels.append((host, int(port or _SENTINEL_PORT)))
    return _Service(sentinels, name, options)


def _no_login() -> dict[str, Any]:
    """Sentinels have neither databases nor, as a rule, passwords."""
    return {"db": 0, "username": None, "password": None}
