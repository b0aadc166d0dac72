"""Connections to the store from its URL: one server, or a primary that Sentinels know."""

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, SSLConnection
from redis.asyncio.connection import AbstractConnection, DefaultParser, parse_url
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from predictor.errors import ConfigError
from predictor.store.address import Sentinels

if TYPE_CHECKING:
    from arq.connections import RedisSettings

_SHAPES = (
    "must look like redis://[user:password@]host[:port][/database], rediss://…, "
    "unix:///path/to/socket or redis+sentinel://host:port,host:port/service"
)

#: Bytes that are sent before it is seen whether the store takes them.
_SLICE = 2**16


def connection_pool(
    url: str, *, silence: float | None = None, at_most: int | None = None, **options: Any
) -> ConnectionPool:
    """A pool of connections to `url`; `options` are redis-py's. Connects to nothing yet.

    `silence`: seconds that the store may neither send nor take a byte of a command under way: a
    limit for all of it would be too short for a large value, or too long for a small one.
    `at_most` bounds the connections; who comes later waits for one. A password may be
    percent-encoded; `rediss://` checks the host's name. Raises ConfigError for an option in the URL
    that redis-py does not know.
    """
    if service := check_url(url):
        options |= service.options
        ask = options | _no_login() | {"socket_timeout": silence}
        sentinel = Sentinel(service.hosts, sentinel_kwargs=ask, **options)
        kind = _watched(SentinelManagedConnection, silence)
        return SentinelConnectionPool(service.name, sentinel, connection_class=kind, **options)
    try:
        given: dict[str, Any] = dict(parse_url(url))
        if given.get("connection_class") is SSLConnection:
            given = {"ssl_check_hostname": True} | given
        given["connection_class"] = _watched(given.get("connection_class", Connection), silence)
        pool = (
            BlockingConnectionPool(max_connections=at_most, timeout=1, **(options | given))
            if at_most
            else ConnectionPool(**(options | given))
        )
        pool.make_connection()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"PREDICTOR_REDIS_URL: {error}") from None
    return pool


def check_url(url: str) -> Sentinels | None:
    """The service that `url` names, if it does. Raises ConfigError for what is no store's."""
    try:
        if service := Sentinels.parse(url):
            return service
        parts = urlsplit(url)
        is_host = parts.scheme in {"redis", "rediss"} and parts.hostname and parts.port != 0
        if is_host or (parts.scheme == "unix" and parts.path):
            return None
    except ValueError:
        pass
    raise ConfigError(f"PREDICTOR_REDIS_URL: {_SHAPES}")


def _watched(kind: type[AbstractConnection], silence: float | None) -> type[AbstractConnection]:
    """`kind`, but with a limit for silence, and no RuntimeError.

    uvloop raises that for a closed connection; here it is a ConnectionError.
    """

    class Parser(DefaultParser):  # type: ignore[misc, valid-type]
        async def read_from_socket(self) -> bool:
            async with asyncio.timeout(silence):
                return bool(await super().read_from_socket())

    class Watched(kind):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**{"parser_class": Parser} | options)

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            whole = memoryview(command if isinstance(command, bytes) else b"".join(command))
            try:
                for start in range(0, len(whole), _SLICE):
                    async with asyncio.timeout(silence):
                        part = whole[start : start + _SLICE]
                        await super().send_packed_command([part], check_health)
            except RuntimeError as error:
                raise RedisConnectionError("The connection is closed.") from error
            except TimeoutError:
                await self.disconnect(nowait=True)
                raise RedisTimeoutError("The store takes no more.") from None

    return Watched


def blocking_client(url: str, **options: Any) -> "redis.Redis":
    """A client for a thread of its own."""
    if service := Sentinels.parse(url):
        options |= service.options
        sentinel = redis.Sentinel(service.hosts, sentinel_kwargs=options | _no_login(), **options)
        client: redis.Redis = sentinel.master_for(service.name)
        return client
    return redis.Redis(connection_pool=redis.ConnectionPool.from_url(url, **options))


def arq_settings(url: str) -> "RedisSettings":
    """The same address in arq's own form, for `arq --check`, which knows no other."""
    from arq.connections import RedisSettings  # the heartbeat needs no arq

    if service := Sentinels.parse(url):
        return RedisSettings(
            host=service.hosts,
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


def _no_login() -> dict[str, Any]:
    """Sentinels have neither databases nor, as a rule, passwords."""
    return {"db": 0, "username": None, "password": None}
