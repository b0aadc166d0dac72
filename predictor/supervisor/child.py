"""A process that is kept running."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from predictor.errors import ConfigError
from predictor.supervisor.guardian import Guardian, signal_group

logger = logging.getLogger(__name__)

#: Seconds of uptime after which the back-off starts from its beginning.
_STABLE = 10.0

#: Seconds between an exit and the restart: doubled each time, up to the second.
_BACK_OFF = (0.2, 10.0)


class CannotStart(ConfigError):
    """A process cannot start."""


@dataclass(eq=False)
class Child:
    """A process that is started, watched, and restarted when it ends."""

    name: str
    command: list[str]
    environment: dict[str, str]
    guardian: Guardian
    #: returns when it serves
    is_ready: Callable[["Child"], Awaitable[None]]
    #: more about why it does not start
    why: Callable[[], str] = str
    ends_last: bool = False
    #: set when it is ready for the first time
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _process: asyncio.subprocess.Process | None = None
    _stopping: bool = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keep it running until `stop`. Raises CannotStart if it ends before it was ever ready."""
        pause = _BACK_OFF[0]
        while not self._stopping:
            started = time.monotonic()
            status = await self._run_once()
            if self._stopping:
                return
            if status == os.EX_CONFIG or not self.ready.is_set():
                reason = f"(exit status {status}){self.why()}"
                raise CannotStart(f"the {self.name} does not start {reason}")
            if time.monotonic() - started > _STABLE:
                pause = _BACK_OFF[0]
            logger.error("the %s ended (exit status %s): started again", self.name, status)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACK_OFF[1])

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, and after `grace` seconds SIGKILL."""
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return
        signal_group(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._process.wait()
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        self._stopping = True
        if self._process and self._process.returncode is None:
            signal_group(self._process.pid, signal.SIGKILL)

    async def _run_once(self) -> int:
        # A session of its own: Ctrl-C in the terminal is for the command, which stops in order.
        self._process = process = await asyncio.create_subprocess_exec(
            *self.command, env=self.environment, start_new_session=True
        )
        self.guardian.watch(process.pid, last=self.ends_last)
        readiness = asyncio.create_task(self._become_ready())
        try:
            return await process.wait()
        finally:
            readiness.cancel()
            signal_group(process.pid, signal.SIGKILL)
            self.guardian.forget(process.pid)

    async def _become_ready(self) -> None:
        await self.is_ready(self)
        self.ready.set()
