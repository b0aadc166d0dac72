import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.store.connection import connect
from predictor.worker.arq_pool import arq_settings


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


def test_arq_is_told_what_the_address_says() -> None:
    query = (
        "ssl_ca_certs=/ca.pem&ssl_certfile=/c&ssl_keyfile=/k&ssl_cert_reqs=none&ssl_min_version=1"
    )
    settings = arq_settings(f"rediss://me:p%40ss@host:7000/3?{query}")
    assert (settings.host, settings.port, settings.database) == ("host", 7000, 3)
    assert (settings.username, settings.password) == ("me", "p@ss")
    assert (settings.ssl, settings.ssl_ca_certs, settings.ssl_certfile) == (True, "/ca.pem", "/c")
    assert (settings.ssl_keyfile, settings.ssl_cert_reqs) == ("/k", "none")
    assert settings.ssl_check_hostname
    assert not arq_settings("rediss://host?ssl_check_hostname=no").ssl_check_hostname
    assert arq_settings("redis://host").port == 6379
    assert not arq_settings("redis://host").ssl
    assert arq_settings("unix:///s?db=2").unix_socket_path == "/s"
