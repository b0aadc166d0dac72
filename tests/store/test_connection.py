import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.store.connection import connect


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
