"""Starts the embedded store, the api and the workers, restarts them, and stops them in order."""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from predictor.config import Config
from predictor.errors import ConfigError
from predictor.logs import is_json
from predictor.process import exposure
from predictor.store.url import check_url
from predictor.supervisor.embedded import EmbeddedStore, is_address
from predictor.supervisor.guardian import Guardian, signal_group

logger = logging.getLogger(__name__)

_BACK_OFF = (0.2, 10.0)  # seconds until a restart: the first, and the longest; doubled each time
_STABLE = 10.0  # seconds of uptime after which the back-off starts anew
_MARGIN = 8.0  # seconds past the drain after which a process is killed
_LOCK_WAIT = 8.0  # seconds for the processes of a command that was killed to end
_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # of an address that this machine has not
_STORE_GRACE = 15.0  # seconds that the store gets to stop


@dataclass(eq=False)
class Child:
    name: str
    command: list[str]
    is_ready: Callable[["Child"], Awaitable[bool]]  # called until it is true for the first time
    explain: Callable[[], str] = str  # more about why it does not start
    fds: Sequence[int] = ()  # that it inherits
    umask: int = -1  # of its own; -1: that of the command
    ends_last: bool = False
    was_ready: bool = False
    process: asyncio.subprocess.Process | None = None
    _stopping: bool = False

    async def run(self, environment: dict[str, str], guardian: Guardian) -> None:
        """Keep it running until `stop`. Raises ConfigError if it ends before it was ever ready."""
        pause = _BACK_OFF[0]
        while not self._stopping:
            started = time.monotonic()
            # A session of its own: Ctrl-C in the terminal is for the command, which stops in order.
            self.process = process = await asyncio.create_subprocess_exec(
                *self.command,
                env=environment,
                start_new_session=True,
                pass_fds=self.fds,
                umask=self.umask,
            )
            guardian.watch(process.pid, "=" if self.ends_last else "+")
            if self._stopping:
                self.terminate(signal.SIGTERM)
            status = await process.wait()
            signal_group(process.pid, signal.SIGKILL)  # what it has left behind
            guardian.watch(process.pid, "-")
            if self._stopping:
                return
            if status == os.EX_CONFIG or not self.was_ready:
                reason = f"(exit status {status}){self.explain()}"
                raise ConfigError(f"the {self.name} does not start {reason}")
            if time.monotonic() - started > _STABLE:
                pause = _BACK_OFF[0]
            logger.error("the %s ended (exit status %s): started again", self.name, status)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACK_OFF[1])

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, and after `grace` seconds SIGKILL."""
        self.terminate(signal.SIGTERM)
        if self.process:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), grace)
            self.terminate(signal.SIGKILL)
            await self.process.wait()

    def terminate(self, signum: int) -> None:
        """Send the signal, and do not start it again."""
        self._stopping = True
        if self.process and self.process.returncode is None:
            signal_group(self.process.pid, signum)


class Supervisor:
    def __init__(self, config: Config, scratch: Path) -> None:
        """`scratch`: an empty folder with a short path, for sockets."""
        self._config, self._scratch = config, scratch
        lock = None if config.redis_url else _lock(config.data_dir)
        self._guardian = Guardian(lock, scratch)
        self._notifications: set[bytes] = set()
        self._store: Child | None = None
        self._served: list[Child] = []
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal. Raises ConfigError if a process does not start."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # nohup
                loop.add_signal_handler(signum, self._on_signal)
        guardian = asyncio.create_task(self._guardian.run())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self._scratch / "notify"))
            loop.add_reader(notify, lambda: self._notifications.add(notify.recv(4096)))
            try:
                await self._start()
                await self._stop.wait()
            finally:
                for listener in self._listeners:
                    listener.close()
                grace = self._config.drain + _MARGIN
                await asyncio.gather(*(child.stop(grace) for child in self._served))
                if self._store:  # last: the others still write to it
                    await self._store.stop(_STORE_GRACE)
                await asyncio.gather(*self._tasks, return_exceptions=True)
                self._guardian.close()
                await asyncio.wait({guardian})
                loop.remove_reader(notify)
        await asyncio.gather(*self._tasks)

    async def _start(self) -> None:
        if self._config.redis_url is None:
            store = EmbeddedStore(self._config.data_dir, self._scratch)
            store.prepare()
            options = store.command, store.is_ready, store.explain
            self._store = Child("embedded store", *options, umask=0o077, ends_last=True)
            await self._launch(self._store)
            self._config = self._config.model_copy(update={"redis_url": store.url})
        self._listeners = _bind(self._config)
        port = self._listeners[0].getsockname()[1]
        config = self._config = self._config.model_copy(update={"port": port})
        fds = [listener.fileno() for listener in self._listeners]
        python, ready = [sys.executable, "-m"], self._has_notified
        api = [*python, "predictor.api", str(max(1, round(config.drain))), *map(str, fds)]
        worker = [*python, "arq", "predictor.worker.Settings"]
        apis = (Child("api", api, ready, fds=fds) for _ in range(config.api_processes))
        self._served = [*apis, *(Child("worker", worker, ready) for _ in range(config.workers))]
        if config.signing_secrets:
            deliverer = [*python, "predictor.webhooks"]
            self._served.append(Child("deliverer of webhooks", deliverer, ready))
        await asyncio.gather(*map(self._launch, self._served))
        if not self._stop.is_set():
            workers = f"{config.workers} worker{'s' if config.workers > 1 else ''}"
            if config.api_processes > 1:
                workers = f"{config.api_processes} api processes and {workers}"
            served, url = f"Predictor serves {config.model} with {workers}", config.local_url
            _say(f"{served} at {url}", f"\n{served}.\n  try it   {url}\n  stop it  Ctrl-C\n")
            if not config.api_keys and (text := exposure()):
                _say(text, f"  WARNING  {text}\n", logging.WARNING)

    async def _launch(self, child: Child) -> None:
        """Start `child`; return when it is ready, or when everything is to stop."""
        environment = os.environ | self._config.environment()
        environment["NOTIFY_SOCKET"] = str(self._scratch / "notify")
        if not self._stop.is_set():
            task = asyncio.create_task(child.run(environment, self._guardian))
            self._tasks.add(task)
            task.add_done_callback(lambda _: self._stop.set())
        while not self._stop.is_set() and not child.was_ready:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(1):
                    child.was_ready = await child.is_ready(child)
            await asyncio.sleep(0.01)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._served:
                child.terminate(signal.SIGKILL)
            return
        text = f"stopping; running predictions get {self._config.drain:g} s to finish"
        _say(text, f"predictor: {text} (again to stop at once, they will run at the next start)")
        self._stop.set()

    async def _has_notified(self, child: Child) -> bool:
        """Whether it has called `notify_ready`."""
        pid = child.process.pid if child.process else None
        return f"READY=1\nMAINPID={pid}".encode() in self._notifications


def supervise(config: Config) -> None:
    """Run everything until a signal. Raises ConfigError if it cannot start."""
    check_url(config.store_url)
    try:
        is_short = is_address(Path(tempfile.gettempdir(), "predictor-12345678", "store.sock"))
        folder = tempfile.TemporaryDirectory(prefix="predictor-", dir=None if is_short else "/tmp")  # noqa: S108
    except OSError as error:
        raise ConfigError(f"TMPDIR: cannot make a folder with a short path: {error}") from None
    with folder as scratch:
        asyncio.run(Supervisor(config, Path(scratch)).run())


def _say(line: str, text: str, level: int = logging.INFO) -> None:
    """Log the line; or print the text, where people read it."""
    if is_json():
        logger.log(level, line)
        return
    with contextlib.suppress(OSError):  # a closed pipe
        print(text, flush=True)  # noqa: T201


def _lock(data_dir: Path) -> IO[str]:
    """Lock the folder: two servers on it would ruin each other's file."""
    reason = " is in use by another predictor"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
        for attempt in range(round(_LOCK_WAIT / 0.05)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            if attempt == 0:
                text = f"{data_dir}{reason}; waiting up to {_LOCK_WAIT:g} s for its end"
                _say(text, f"predictor: {text}")
            time.sleep(0.05)
    except OSError as error:
        reason = f": {error.strerror}"
    raise ConfigError(f"PREDICTOR_DATA_DIR: {data_dir}{reason}")


def _bind(config: Config) -> list[socket.socket]:
    """Sockets of the api, one for each address of the host. Raises ConfigError.

    They do not listen, so that clients are refused, until the first process is ready. Processes
    share their queues of connections: if one dies, the others accept what it has not.
    """
    port, sockets, absent = config.port, list[socket.socket](), OSError()
    try:
        found = socket.getaddrinfo(
            config.host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, (host, _, *scope) in dict.fromkeys(found):
            try:
                sockets.append(_bound((host, port, *scope), family, kind, protocol))
                port = sockets[0].getsockname()[1]
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
                logger.warning("not listening on %s: %s", host, error.strerror)
        if not sockets:
            raise absent
    except OSError as error:
        reason = f"cannot listen on {config.host}:{config.port}: {error.strerror}"
        raise ConfigError(f"PREDICTOR_HOST, PREDICTOR_PORT: {reason}") from None
    return sockets


def _bound(address: tuple[Any, ...], family: int, kind: int, protocol: int) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
