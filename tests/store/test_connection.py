import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.store.connection import connection_pool


def test_a_connection_that_is_lost_is_an_error_of_the_connection(redis_url: str) -> None:
    """uvloop says RuntimeError, which a worker would take for a bug, and end."""

    async def lose() -> bool:
        pool = connection_pool(redis_url, socket_timeout=1)
        connection = await pool.get_connection()
        connection._writer.transport.abort()
        try:
            await connection.send_command("PING")
        except RedisConnectionError:
            return bool(await Redis(connection_pool=pool).ping())
        finally:
            await pool.disconnect()
        return False

    assert uvloop.run(lose())
