"""Real processes for the tests: started, awaited by what they say, ended whatever happens."""

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx

from tests.canaries import Canaries
from tests.contract import contract

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def eventually(true: Callable[[], Any], what: str, seconds: float = 15) -> Any:
    """What `true` answers as soon as that is truthy. For what says nothing when it happens."""
    began = time.monotonic()
    while not (seen := true()):
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds} s: {what} (last: {seen!r})"
        time.sleep(min(max(0.005, waited / 20), 0.05))
    return seen


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


#: For what is to be fast: measuring coverage costs as much again as what it measures.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


class Process:
    """One process, its output in a file."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        return self.status is None

    @property
    def cpu_ms(self) -> float:
        """CPU time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")

    def signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def wait(self, seconds: float = 20) -> int:
        """Its exit status."""
        deadline = time.monotonic() + seconds
        while (status := self.status) is None:
            assert time.monotonic() < deadline, f"runs after {seconds} s:\n{self.output}"
            time.sleep(0.005)
        return status

    def stop(self, seconds: float = 20) -> int:
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """With all that it started in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


class Forked(Process):
    """One that had everything imported when it started: a tenth of the time."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        self._exit = self._log.with_suffix(".exit")
        self._log.touch()
        self._pid = _zygote(UNMEASURED.items() <= environment.items()).start(
            argv=command,
            env=environment,
            cwd=str(folder),
            log=str(self._log),
            exit=str(self._exit),
        )

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def status(self) -> int | None:
        return int(self._exit.read_text()) if self._exit.exists() else None


class _Zygote:
    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def start(self, **request: Any) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


@functools.cache
def _zygote(is_unmeasured: bool) -> _Zygote:
    zygote = _Zygote(UNMEASURED if is_unmeasured else {})
    atexit.register(zygote.end)
    return zygote


class Processes:
    """All processes of one test, on one store."""

    #: What they are to the store; set by --least-rights.
    as_user: ClassVar[Any] = staticmethod(str)

    def __init__(
        self,
        folder: Path,
        redis_url: str | None,
        kind: type[Process] = Process,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """`settings`: of each process, as in `start`."""
        self._settings = settings or {}
        self._folder = folder
        self._kind = kind
        self._redis_url = redis_url
        self._started: list[Process] = []
        self._clients: list[httpx.Client] = []
        self._canaries = Canaries()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()
        for process in reversed(self._started):
            if process.is_running:
                process.signal(signal.SIGTERM)
        for process in reversed(self._started):
            with contextlib.suppress(AssertionError):
                process.wait(8)
            process.kill()
            if kind:
                print(f"--- output of {process.pid}\n{process.output}")
        found = {
            each: process.output
            for process in self._started
            for each in self._canaries.found_in(process.output)
        }
        assert kind or not found, f"a log shows what a client sent or got, or a secret: {found}"

    def start(self, *command: str, **settings: Any) -> Process:
        """Start a command; `settings` are PREDICTOR_* without the prefix, others in capitals."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PREDICTOR_")
        }
        environment |= {"PYTHONPATH": str(ROOT), "PREDICTOR_LOG_FORMAT": "console"}
        if self._redis_url:
            environment["PREDICTOR_REDIS_URL"] = self.as_user(self._redis_url)
        for name, value in (self._settings | settings).items():
            prefix = "" if name.isupper() else "PREDICTOR_"
            environment[prefix + name.upper()] = str(value)
        self._canaries.set({"redis_url": self._redis_url} | self._settings | settings)
        kind = Process if command[0] == "watchfiles" else self._kind
        process = kind(list(command), environment, self._folder)
        self._started.append(process)
        return process

    def start_worker(self, *options: str, **settings: Any) -> Process:
        return self.start("arq", "predictor.worker.Settings", *options, **settings)

    def worker(self, *options: str, **settings: Any) -> Process:
        """A worker that has said that it is ready."""
        address = self._folder / f"notify-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(address))
            listener.settimeout(0.1)
            process = self.start_worker(*options, NOTIFY_SOCKET=address, **settings)
            for _ in range(200):
                try:
                    assert b"READY=1" in listener.recv(100)
                except TimeoutError:
                    assert process.is_running, f"ended before it was ready:\n{process.output}"
                else:
                    return process
        raise AssertionError(f"not ready:\n{process.output}")

    def start_api(self, port: int, *options: str, **settings: Any) -> Process:
        edge = () if "--http" in options else ("--http", "predictor.api.protocol:Protocol")
        command = ("uvicorn", "predictor.main:app", "--port", str(port), *edge, *options)
        return self.start(*command, **settings)

    def api(self, *options: str, **settings: Any) -> "Api":
        """An api that accepts connections."""
        port = free_port()
        return self.client(port, self.start_api(port, *options, **settings))

    def client(self, port: int, process: Process) -> "Api":
        def accepts() -> bool:
            assert process.is_running, f"ended before it served:\n{process.output}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(accepts, f"a server on port {port}", 30)
        # Not httpx's own context: reading all certificates of the world takes longer than a test.
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=30,
            verify=plain,
            event_hooks={"response": [contract().check, self._canaries.note]},
        )
        self._clients.append(client)
        return Api(client, process, port)


class Api:
    """A running api, and what a client does with it."""

    def __init__(self, client: httpx.Client, process: Process, port: int) -> None:
        self.client = client
        self.process = process
        self.port = port

    def predict(self, text: str) -> httpx.Response:
        return self.client.post("/predict", json={"input": text})

    def post(self, text: str, **headers: str) -> httpx.Response:
        """`headers` with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/predict", json={"input": text}, headers=named)

    def submit(self, text: str, **headers: str) -> str:
        """The id of an accepted prediction."""
        answer = self.post(text, Async_Mode="true", **headers)
        assert answer.status_code == 202, answer.text
        prediction_id: str = answer.json()["prediction_id"]
        return prediction_id

    def read(self, prediction_id: str, wait: int | None = None) -> httpx.Response:
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        return self.client.get(f"/predict/{prediction_id}", headers=headers)

    def status(self, prediction_id: str) -> Any:
        """What is known of a known prediction."""
        answer = self.client.get(f"/predict/{prediction_id}/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def raw(self, head: bytes, body: bytes = b"") -> tuple[int, str]:
        """Status and body of the answer to a request that no client library would send."""
        request = b"%b\r\nHost: x\r\nConnection: close\r\n\r\n%b" % (head, body)
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2].decode()

    def outcome(self, prediction_id: str, seconds: float = 20) -> httpx.Response:
        """The answer once it is no longer pending, and the store can tell."""
        answer: httpx.Response = eventually(
            lambda: (a := self.read(prediction_id, wait=5)).status_code not in {202, 503} and a,
            f"an outcome of {prediction_id}",
            seconds,
        )
        return answer
