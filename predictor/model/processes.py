"""Runs a model in processes of its own, one call at a time in each: they may crash or be killed."""

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from pydantic_core import from_json, to_json

from predictor.config import PREFIX, Config
from predictor.errors import BY_CODE, ConfigError, ModelFailed
from predictor.logs import about
from predictor.model.frames import PART, Kind, read, write
from predictor.model.run import Outcome, Run
from predictor.prediction import EventKind, Json, encode

logger = logging.getLogger(__name__)

_MOST = 2**31  # bytes of a frame
_GRACE = 0.2  # seconds that a canceled prediction has to end before its process is killed
_EXIT = 0.8  # seconds that a process has to exit by itself
_BACK_OFF = (0.2, 60.0)  # seconds until a restart: the first, and the longest; doubled each time


class _Child:
    """One process with the model, which lives as long as the task `life`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._run: Run | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.loaded = _future()
        #: what it is to answer, at first that the model is loaded; None while it is idle
        self.answer: asyncio.Future[bytes] | None = self.loaded
        self.answers = 0
        self.is_usable = self.was_called = False
        self._reason = ""  # why it is ended on purpose
        self.life = asyncio.create_task(self._live())

    @property
    def has_run_enough(self) -> bool:
        return 0 < self._config.runs_per_process < self.answers  # the first: that it is loaded

    async def _live(self) -> None:
        """Start the process, hear what it says, and settle what it has not answered."""
        try:
            how = await self._end_of_process()
        except OSError as error:
            how = f"a process cannot be started: {error}"
        logger.log(logging.INFO if self._reason else logging.ERROR, "%s%s", how, self._reason)
        if self._run:
            self._settle(ModelFailed(), how)
        elif self.answer:
            model = f"PREDICTOR_MODEL: {self._config.model!r}"
            self._settle(ConfigError(f"{model}: while it was loaded, {how}"))

    async def _end_of_process(self) -> str:
        environment = os.environ | self._config.environment() | {f"{PREFIX}RUNS_IN": "thread"}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, sys.path))
        ours, theirs = socket.socketpair()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=PART)
        try:
            with theirs:
                self._process = process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "predictor.model.child", str(theirs.fileno())),
                    stdin=asyncio.subprocess.PIPE,
                    env=environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a process group, which can be killed as a whole
                )
            if self._reason:
                self._kill()
            reading = asyncio.create_task(self._read(reader))
            waiting = asyncio.create_task(process.wait())
            await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({waiting}, timeout=_EXIT)
            self._kill()  # what is left of it
            status = await waiting
            await asyncio.wait({reading}, timeout=_GRACE)  # what it said last
            reading.cancel()
        finally:
            self._writer.transport.abort()
        how = f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"status {status}"
        return f"process {process.pid} of the model ended with {how}"

    async def call(self, value: Json, run: Run) -> Json:
        """The result. If this is canceled, and it does not answer soon, the process is ended."""
        answer, self.was_called = _future(), True
        self.answer = answer
        self._run, head = run, to_json([run.id, run.deadline, dict(about.get())]) + b"\n"
        try:
            with suppress(OSError, RuntimeError):  # it is dead: so will the answer be
                await write(self._writer, Kind.RUN, head, value)
            head = b""
            return Json(await asyncio.shield(answer))
        except asyncio.CancelledError:
            if not head:
                with suppress(OSError, RuntimeError):
                    await write(self._writer, Kind.CANCEL, b"")
                await asyncio.wait({answer}, timeout=_GRACE)
            if not answer.done():
                self.end("its prediction did not end when it was canceled")
            raise

    def end(self, reason: str) -> None:
        """Let it exit if it is idle; else kill it, with all that it has started."""
        self.is_usable, self._reason = False, self._reason or f" ({reason})"
        if self.answer:
            self._kill()
        else:
            self._writer.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self._process:
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            for count in itertools.count(1):
                self._hear(*await read(reader, _MOST))
                if count % 50 == 0:
                    await asyncio.sleep(0)  # thousands may have come at once
        except (EOFError, OSError):
            return
        except Exception:
            logger.exception("a process of the model cannot be understood")
            self._kill()
        finally:
            self.is_usable = False

    def _hear(self, kind: Kind, body: bytes) -> None:
        if kind in {Kind.PROGRESS, Kind.OUTPUT}:
            try:
                if self._run:
                    self._run.emit(EventKind[kind.name], Json(body))
            except ModelFailed as error:
                self.end("its output came too fast")
                self._settle(error)
            return
        self.answers += 1
        self.is_usable &= not self.has_run_enough  # from now on: the next one looks at it at once
        if kind is Kind.REFUSED:
            self._settle(ConfigError(body.decode()))
        elif kind is Kind.ERROR:
            code, message, trace = from_json(body)
            self._settle(BY_CODE[code](message), trace)
        elif kind is (Kind.RESULT if self._run else Kind.READY):
            self.is_usable |= kind is Kind.READY
            self._settle(body)
        else:
            raise ValueError(f"{kind!r}")

    def _settle(self, result: bytes | Exception, cause: str = "") -> None:
        answer, self.answer, self._run = self.answer, None, None
        if not answer:
            raise ValueError("an answer to nothing")
        if isinstance(result, Exception):
            result.__cause__ = ChildProcessError(cause) if cause else None
            answer.set_exception(result)
        else:
            answer.set_result(result)


class Processes:
    def __init__(self, config: Config, count: int) -> None:
        """`count` predictions run at once; `config.spare` more processes are ready to take over."""
        self._config, self._count = config, count
        self._turns, self._freed = asyncio.Semaphore(count), asyncio.Event()
        self._children: set[_Child] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def alive(self) -> int:
        """How many predictions can run at once."""
        return min(self._count, sum(child.is_usable for child in self._children))

    async def start(self) -> None:
        """Return when `count` processes have loaded the model. Raises ConfigError."""
        needed = [self._new() for _ in range(self._count)]
        try:
            await asyncio.gather(*(asyncio.shield(child.loaded) for child in needed))
        except BaseException:
            await self.close()
            raise
        for child in needed + [self._new() for _ in range(self._config.spare)]:
            self._add(self._keep(child))

    async def close(self) -> None:
        """End all processes, whatever they do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for child in self._children:
            child.end("stopped")
        await asyncio.gather(*(child.life for child in self._children))

    def call(self, value: Json, run: Run) -> asyncio.Future[Json]:
        """Run one prediction in the next free process.

        The future raises PredictionError; ModelFailed, too, if the process dies. When it is
        canceled, it ends as soon as the prediction has ended, or its process was killed.
        """
        return self._add(self._call(value, run))

    async def call_batch(self, values: list[Json], run: Run) -> list[Outcome]:
        """Run several predictions in one call of the model."""
        answer = await self.call(Json(b"[%b]" % b",".join(values)), run)
        return [
            BY_CODE[each["code"]](each["message"]) if "code" in each else encode(each["result"])
            for each in from_json(answer)
        ]

    def _add(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _call(self, value: Json, run: Run) -> Json:
        async with self._turns:
            while not (idle := [c for c in self._children if c.is_usable and not c.answer]):
                self._freed.clear()
                await self._freed.wait()
            # The most used one: those that `runs_per_process` ends must not end at the same time.
            child = max(idle, key=lambda child: child.answers)
            try:
                return await child.call(value, run)
            finally:
                if child.has_run_enough:
                    child.end("PREDICTOR_RUNS_PER_PROCESS")
                self._freed.set()

    def _new(self) -> _Child:
        self._children.add(child := _Child(self._config))
        return child

    async def _keep(self, child: _Child) -> None:
        """Replace the process each time that it ends."""
        pause = _BACK_OFF[0]
        while True:
            try:
                await asyncio.shield(child.loaded)
                self._freed.set()
            except ConfigError as error:
                if pause == _BACK_OFF[0]:
                    logger.warning("a process of the model does not start: %s", error)
            await asyncio.shield(child.life)
            self._children.discard(child)
            if child.was_called:  # it was not its start that failed
                pause = _BACK_OFF[0]
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _BACK_OFF[1])
            child = self._new()


def _future() -> asyncio.Future[bytes]:
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # if none waits
    return future
