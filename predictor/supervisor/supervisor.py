"""Starts the embedded store, the api and the workers, restarts them, and stops them in order."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import IO, Any

from predictor.config import Config
from predictor.store.connection import check_url
from predictor.supervisor.child import CannotStart, Child
from predictor.supervisor.embedded import EmbeddedStore, is_address
from predictor.supervisor.guardian import Guardian
from predictor.webhooks.allowlist import Allowed

#: Seconds past the drain after which a process is killed.
_MARGIN = 8.0

#: Seconds that the store gets to stop.
_STORE_GRACE = 15.0


class Supervisor:
    """The processes of one `predictor` command."""

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
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, self._on_signal)
        loop.add_reader(self._notifications.socket, self._notifications.read)
        guardian = asyncio.create_task(self._guardian.run())
        try:
            await self._start()
            await self._stop.wait()
        finally:
            await self._end()
            self._guardian.close()
            await asyncio.wait({guardian})
            loop.remove_reader(self._notifications.socket)
            self._notifications.socket.close()
        for task in self._tasks:
            task.result()

    async def _start(self) -> None:
        if self._config.redis_url is None:
            store = EmbeddedStore(self._config.data_dir, self._scratch)
            store.cut_zeros()
            options = {"is_ready": store.is_ready, "why": store.why, "ends_last": True}
            self._store = self._child("embedded store", store.command, **options)
            await self._launch(self._store)
            self._config = self._config.with_redis_url(store.url)
        config = self._config.model_copy(update={"port": _free_port(self._config)})
        self._config = config
        worker = [sys.executable, "-m", "arq", "predictor.worker.Settings"]
        self._served = [self._child("api", self._api_command(), is_ready=self._accepts)]
        self._served += [self._child("worker", worker) for _ in range(config.workers)]
        if config.signing_secrets:
            deliverer = [sys.executable, "-m", "predictor.webhooks"]
            self._served.append(self._child("deliverer of webhooks", deliverer))
        await asyncio.gather(*map(self._launch, self._served))
        if not self._stop.is_set():
            workers = "1 worker" if config.workers == 1 else f"{config.workers} workers"
            _print(
                f"\nPredictor serves {config.model} with {workers}.\n"
                f"  try it   {config.local_url}/docs\n"
                f"  stop it  Ctrl-C\n"
            )

    async def _launch(self, child: Child) -> None:
        """Start `child`; return when it is ready, or when everything is to stop."""
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
        """Stop the store last: the others still write to it."""
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
        _print(
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

    async def _accepts(self, _child: Child) -> None:
        """Return when the api accepts connections."""
        while True:
            with contextlib.suppress(OSError):
                address = self._config.local_host, self._config.port
                (await asyncio.open_connection(*address))[1].close()
                return
            await asyncio.sleep(0.05)


class Notifications:
    """The other end of `notify_ready`: NOTIFY_SOCKET of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self._ready: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    def read(self) -> None:
        """Read one notification, when the socket is readable."""
        lines = self.socket.recv(4096).decode().splitlines()
        fields = dict(line.partition("=")[::2] for line in lines)
        if fields.get("READY") == "1":
            self._ready[int(fields.get("MAINPID", "0"))].set()

    async def wait_for(self, child: Child) -> None:
        """Return when the current process of `child` is ready."""
        await self._ready[child.pid or 0].wait()


def supervise(config: Config) -> None:
    """Run everything until a signal. Raises ConfigError if it cannot start."""
    Allowed.parse(config.webhook_allow)
    check_url(config.store_url)
    try:
        is_short = is_address(Path(tempfile.gettempdir(), "predictor-12345678", "store.sock"))
        folder = tempfile.TemporaryDirectory(prefix="predictor-", dir=None if is_short else "/tmp")  # noqa: S108
    except OSError as error:
        raise CannotStart(f"TMPDIR: cannot make a folder with a short path: {error}") from None
    with folder as scratch:
        asyncio.run(Supervisor(config, Path(scratch)).run())


def _print(text: str) -> None:
    with contextlib.suppress(OSError):  # a closed pipe
        print(text, flush=True)  # noqa: T201


def _lock(data_dir: Path) -> IO[str]:
    """Lock the folder: two servers on it would ruin each other's file."""
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
    """The port of the api. Raises CannotStart if it cannot be listened on."""
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
