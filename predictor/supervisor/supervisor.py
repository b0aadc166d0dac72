"""The `predictor` command at work: store, api and workers, started, kept and stopped in order."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from predictor.config import Config
from predictor.store.connection import check_url
from predictor.supervisor.child import CannotStart, Child, Guardian
from predictor.supervisor.embedded import EmbeddedStore, is_address
from predictor.webhooks.allowlist import Allowed

#: Seconds past the drain after which a process that was told to stop is killed.
_MARGIN = 8.0

#: Seconds that the store gets to write its file to the end.
_STORE_GRACE = 15.0


class Supervisor:
    """All processes of one command."""

    def __init__(self, config: Config, scratch: Path) -> None:
        """`scratch`: an empty folder with a short path, for sockets."""
        self._config = config
        self._scratch = scratch
        self._lock = None if config.redis_url else _lock(config.data_dir)
        self._guardian = Guardian(self._lock)
        self._notifications = Notifications(scratch / "notify")
        self._store: Child | None = None
        self._served: list[Child] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal. Raises CannotStart if a process does not start."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, self._on_signal)
        guardian = asyncio.create_task(self._guardian.run())
        listening = asyncio.create_task(self._notifications.run())
        try:
            await self._start()
            await self._stop.wait()
        finally:
            await self._end()
            self._guardian.close()
            listening.cancel()
            await asyncio.wait({guardian, listening})
        for task in self._tasks:
            task.result()

    async def _start(self) -> None:
        if self._config.redis_url is None:
            store = EmbeddedStore(self._config.data_dir, self._scratch)
            store.cut_zeros()
            answers = {"is_ready": store.is_ready, "why": store.why}
            self._store = self._child("embedded store", store.command, ends_last=True, **answers)
            await self._launch(self._store)
            self._config = self._config.with_redis_url(store.url)
        self._config = self._config.model_copy(update={"port": _free_port(self._config)})
        worker = [sys.executable, "-m", "arq", "predictor.worker.Settings"]
        self._served = [self._child("api", self._api_command(), is_ready=self._answers)]
        self._served += [self._child("worker", worker) for _ in range(self._config.workers)]
        if self._config.signing_secrets:
            deliverer = [sys.executable, "-m", "predictor.webhooks"]
            self._served.append(self._child("deliverer of webhooks", deliverer))
        await asyncio.gather(*map(self._launch, self._served))
        if not self._stop.is_set():
            say(_welcome(self._config))

    async def _launch(self, child: Child) -> None:
        """Start `child`; returns when it is ready, or there is nothing to wait for any more."""
        if self._stop.is_set():
            return
        task = asyncio.create_task(child.run())
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._stop.set())
        ready = asyncio.create_task(child.ready.wait())
        stop = asyncio.create_task(self._stop.wait())
        _, pending = await asyncio.wait({ready, stop}, return_when=asyncio.FIRST_COMPLETED)
        for waiter in pending:
            waiter.cancel()

    async def _end(self) -> None:
        """The api and the workers first, so that what they still have to write can be written."""
        grace = self._config.drain + _MARGIN
        await asyncio.gather(*(child.stop(grace) for child in self._served))
        if self._store:
            await self._store.stop(_STORE_GRACE)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._served:
                child.kill()
            return
        say(
            f"predictor: stopping; running predictions get {self._config.drain:g} s to finish "
            "(again to stop at once, they will run at the next start)"
        )
        self._stop.set()

    def _child(self, name: str, command: list[str], **options: Any) -> Child:
        environment = os.environ | self._config.environment()
        environment["NOTIFY_SOCKET"] = str(self._scratch / "notify")
        options = {"is_ready": self._notifications.wait_for} | options
        return Child(name, command, environment, guardian=self._guardian, **options)

    def _api_command(self) -> list[str]:
        config = self._config
        address = ["--host", config.host, "--port", str(config.port), "--no-server-header"]
        stop = ["--timeout-graceful-shutdown", str(max(1, round(config.drain)))]
        edge = ["--http", "predictor.api.protocol:Protocol"]
        serve = [sys.executable, "-m", "uvicorn", "predictor.main:app"]
        return [*serve, *edge, *address, *stop]

    async def _answers(self, _child: Child) -> None:
        """Return when the api accepts connections."""
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(
                    self._config.local_host, self._config.port
                )
                writer.close()
                return
            await asyncio.sleep(0.05)


class Notifications:
    """Where processes say that they are ready: NOTIFY_SOCKET of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._ready: set[int] = set()
        self._news = asyncio.Condition()

    async def run(self) -> None:
        """Listen, for ever."""
        loop = asyncio.get_running_loop()
        with self._socket:
            while True:
                fields = dict(
                    line.partition("=")[::2]
                    for line in (await loop.sock_recv(self._socket, 4096)).decode().splitlines()
                )
                async with self._news:
                    if fields.get("READY") == "1":
                        self._ready.add(int(fields.get("MAINPID", "0")))
                    self._news.notify_all()

    async def wait_for(self, child: Child) -> None:
        """Return when the process that `child` runs has said that it is ready."""
        async with self._news:
            await self._news.wait_for(lambda: child.pid in self._ready)


def supervise(config: Config) -> None:
    """Run everything until a signal. Raises ConfigError, with one line, if it cannot start."""
    Allowed.parse(config.webhook_allow)
    check_url(config.store_url)
    try:
        is_short = is_address(Path(tempfile.gettempdir(), "predictor-12345678", "store.sock"))
        folder = tempfile.TemporaryDirectory(prefix="predictor-", dir=None if is_short else "/tmp")  # noqa: S108
    except OSError as error:
        raise CannotStart(f"TMPDIR: cannot make a folder with a short path: {error}") from None
    with folder as scratch:
        asyncio.run(Supervisor(config, Path(scratch)).run())


def say(text: str) -> None:
    """Tell the person who started the command."""
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(text, flush=True)  # noqa: T201


def _lock(data_dir: Path) -> IO[str]:
    """Two servers on one folder would ruin each other's file."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(
            f"PREDICTOR_DATA_DIR: {data_dir} is in use by another predictor"
        ) from None
    except OSError as error:
        raise CannotStart(f"PREDICTOR_DATA_DIR: {data_dir}: {error.strerror}") from None
    return lock


def _free_port(config: Config) -> int:
    """The port that the api will have; says so now if it cannot."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.create_server(address[:2], family=family) as probe:
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise CannotStart(
            f"PREDICTOR_HOST, PREDICTOR_PORT: cannot listen on {config.host}:{config.port}: "
            f"{error.strerror}"
        ) from None


def _welcome(config: Config) -> str:
    workers = "1 worker" if config.workers == 1 else f"{config.workers} workers"
    return (
        f"\nPredictor serves {config.model} with {workers}.\n"
        f"  try it   {config.local_url}/docs\n"
        f"  stop it  Ctrl-C\n"
    )
