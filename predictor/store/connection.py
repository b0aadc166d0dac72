"""Connections to the store from its URL."""

from typing import Any

import redis
from arq.connections import RedisSettings
from redis.asyncio import ConnectionPool, SSLConnection
from redis.asyncio.connection import parse_url

from predictor.errors import ConfigError

#: Where a process looks that was started by hand and told no store.
DEFAULT_URL = "redis://localhost:6379"


def connection_pool(url: str, **options: Any) -> ConnectionPool:
    """A pool of connections to `url`; `options` are redis-py's. Connects to nothing yet.

    A password may be percent-encoded; `rediss://` checks the host's name. Raises ConfigError for an
    option in the URL that redis-py does not know.
    """
    try:
        given: dict[str, Any] = dict(parse_url(url))
        if given.get("connection_class") is SSLConnection:
            given = {"ssl_check_hostname": True} | given
        pool: ConnectionPool = ConnectionPool(**(options | given))
        pool.make_connection()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"PREDICTOR_REDIS_URL: {error}") from None
    return pool


def arq_settings(url: str) -> RedisSettings:
    """The same address in arq's own form, for `arq --check`, which knows no other."""
    given = connection_pool(url).connection_kwargs
    return RedisSettings(
        host=given.get("host", "localhost"),
        port=given.get("port", 6379),
        unix_socket_path=given.get("path"),
        database=given.get("db", 0),
        username=given.get("username"),
        password=given.get("password"),
        ssl=url.startswith("rediss:"),
        ssl_check_hostname=True,
    )


def blocking_client(url: str, **options: Any) -> redis.Redis:
    """A client for a thread of its own."""
    pool = redis.ConnectionPool.from_url(url, **options)
    return redis.Redis(connection_pool=pool)
