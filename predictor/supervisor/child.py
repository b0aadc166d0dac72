"""A process that is kept running, and the guardian that ends it if its keeper is killed."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import IO

from predictor.errors import CANNOT_START, ConfigError

logger = logging.getLogger(__name__)

#: Seconds of life after which a process that dies is not taken to be failing again.
_STABLE = 10.0

#: Seconds between a death and the next start: doubled each time, at most the second.
_BACK_OFF = (0.2, 10.0)


class CannotStart(ConfigError):
    """A process cannot start."""


class Child:
    """One process that is to run: started, watched, started again when it dies."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        *,
        is_ready: Callable[["Child"], Awaitable[None]],
        guardian: "Guardian",
        ends_last: bool = False,
        why: Callable[[], str] = str,
    ) -> None:
        """`is_ready` returns when it serves; `why` may add to the words that it does not start."""
        self.name = name
        self._command = command
        self._environment = environment
        self._is_ready = is_ready
        self._guardian = guardian
        self._ends_last = ends_last
        self._why = why
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        #: set when it is ready for the first time
        self.ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keep it running until `stop`. Raises CannotStart if it ends before it was ever ready."""
        pause = _BACK_OFF[0]
        while not self._stopping:
            started = time.monotonic()
            status = await self._run_once()
            if self._stopping:
                return
            if status == CANNOT_START or not self.ready.is_set():
                reason = f"(exit status {status}){self._why()}"
                raise CannotStart(f"the {self.name} does not start {reason}")
            if time.monotonic() - started > _STABLE:
                pause = _BACK_OFF[0]
            logger.error("the %s ended (exit status %s): started again", self.name, status)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACK_OFF[1])

    async def stop(self, grace: float) -> None:
        """Tell it to stop; kill what is left of it after `grace` seconds."""
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return
        _signal_group(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._process.wait()
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """End it now."""
        self._stopping = True
        if self._process and self._process.returncode is None:
            _signal_group(self._process.pid, signal.SIGKILL)

    async def _run_once(self) -> int:
        # A session of its own: a Ctrl-C in the terminal is for the command, which stops in order.
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, start_new_session=True
        )
        self._guardian.watch(process.pid, last=self._ends_last)
        readiness = asyncio.create_task(self._become_ready())
        try:
            return await process.wait()
        finally:
            readiness.cancel()
            _signal_group(process.pid, signal.SIGKILL)
            self._guardian.forget(process.pid)

    async def _become_ready(self) -> None:
        await self._is_ready(self)
        self.ready.set()


class Guardian:
    """The process that ends the others if this one is killed."""

    def __init__(self, lock: IO[str] | None) -> None:
        """`lock` stays locked until the guardian has ended what it had to."""
        self._lock = lock
        self._watched: dict[int, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keep a guardian running; returns when `close` was called."""
        while True:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "predictor.supervisor.guardian"),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=[self._lock.fileno()] if self._lock else [],
            )
            for group, sign in self._watched.items():
                self._tell(f"{sign}{group}")
            if await self._process.wait() == 0:
                return

    def watch(self, group: int, *, last: bool) -> None:
        """End this process group, should this process be killed."""
        self._watched[group] = "=" if last else "+"
        self._tell(f"{self._watched[group]}{group}")

    def forget(self, group: int) -> None:
        """It has ended."""
        self._watched.pop(group, None)
        self._tell(f"-{group}")

    def close(self) -> None:
        """Nothing is left to guard."""
        if self._process and self._process.stdin:
            self._process.stdin.close()

    def _tell(self, line: str) -> None:
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(line.encode() + b"\n")


def _signal_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
