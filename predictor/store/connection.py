"""Connections to the store, and what a server must be like to keep predictions."""

import asyncio
from typing import Any, cast

import redis
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, DefaultParser, parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from predictor.errors import UnsuitableStore
from predictor.store.url import check_url

#: Sentinels have neither databases nor, as a rule, passwords.
_NO_LOGIN: dict[str, Any] = {"db": 0, "username": None, "password": None}
_SLICE = 2**16  # bytes that are sent before it is seen whether the store takes them


def connect(
    url: str, *, silence: float | None = None, at_most: int | None = None, **options: Any
) -> Redis:
    """A client for `url`, with `options` of redis-py's. It connects when it is first used.

    `silence`: seconds for each piece of a command, however large the whole is. `at_most` bounds the
    connections; later calls wait for one. Raises ConfigError for a URL that cannot be used.
    """
    if service := check_url(url):
        options |= service.options
        ask = options | _NO_LOGIN | {"socket_timeout": silence}
        sentinel = Sentinel(service.hosts, sentinel_kwargs=ask, **options)
        options["connection_class"] = _watched(SentinelManagedConnection, silence)
        return Redis(connection_pool=SentinelConnectionPool(service.name, sentinel, **options))
    given: dict[str, Any] = dict(parse_url(url))
    kind = given.get("connection_class", Connection)
    options |= _name_check(url) | given | {"connection_class": _watched(kind, silence)}
    if at_most:
        options |= {"max_connections": at_most, "timeout": 1}
    pool = (BlockingConnectionPool if at_most else ConnectionPool)(**options)
    return Redis(connection_pool=pool)


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
    if service := check_url(url):
        options |= service.options
        sentinel = redis.Sentinel(service.hosts, sentinel_kwargs=options | _NO_LOGIN, **options)
        return cast("redis.Redis", sentinel.master_for(service.name))
    options |= _name_check(url)
    return redis.Redis.from_url(url, **options)


def _name_check(url: str) -> dict[str, bool]:
    """The name of a server is checked where its certificate is."""
    is_checked = "ssl_cert_reqs=none" not in url
    return {"ssl_check_hostname": is_checked} if url.startswith("rediss:") else {}


def address(pool: ConnectionPool) -> str:
    """Where a pool connects to, without user and password."""
    if isinstance(pool, SentinelConnectionPool):
        return str(pool.service_name)
    given = pool.connection_kwargs
    return str(given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}")


def check_server(info: dict[str, Any]) -> None:
    """Raise UnsuitableStore if INFO shows a server that would lose predictions."""
    version = str(info.get("redis_version", "0"))  # of a Valkey, that of the Redis that it equals
    if int(version.partition(".")[0]) < 7:
        raise UnsuitableStore(f"The store is Redis {version}; it must be 7.0 or newer.")
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        risk = f"The store would evict predictions: its maxmemory-policy is {policy}"
        raise UnsuitableStore(f"{risk}; set it to noeviction.")
